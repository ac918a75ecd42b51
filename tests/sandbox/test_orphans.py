"""What a killed service leaves behind is ended by the next one, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.drivers.orphans import end_orphans
from services.sandbox.drivers.programs import find_bwrap
from services.sandbox.limits import Limits
from tests.sandbox.drivers import made

pytestmark = pytest.mark.real


def _first_processes(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if marker in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.fixture
def bwrap() -> Path:
    found = find_bwrap(None)
    assert found is not None
    return found


@pytest.fixture
def abandoned(bwrap: Path) -> Iterator[str]:
    """A sandbox whose outer bubblewrap was killed without its knowing, as its service was."""
    marker = f"abandoned-{os.getpid()}"
    command = [
        str(bwrap), "--info-fd", "2", "--unshare-user", "--unshare-pid", "--dev-bind", "/", "/", "--",
        shutil.which("prlimit") or "", sys.executable, "-c", "import time; time.sleep(60)", marker,
    ]  # fmt: skip
    outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while len(_first_processes(marker)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    outer.send_signal(signal.SIGKILL)
    outer.wait()
    yield marker
    for pid in _first_processes(marker):
        os.kill(pid, signal.SIGKILL)


def test_a_sandbox_without_an_outside_is_ended(bwrap: Path, abandoned: str) -> None:
    assert len(_first_processes(abandoned)) == 2
    assert end_orphans(bwrap) >= 1
    until = time.monotonic() + 10
    while _first_processes(abandoned) and time.monotonic() < until:
        time.sleep(0.02)
    assert _first_processes(abandoned) == []


async def test_a_sandbox_that_has_one_is_left_alone(bwrap: Path, tmp_path: Path) -> None:
    driver = await made("bwrap", tmp_path)
    child = await driver.start(SandboxSpec(command=("/bin/cat",), workspace=tmp_path, limits=Limits()))
    try:
        end_orphans(bwrap)
        child.stdin.write(b"still here\n")
        async with asyncio.timeout(10):
            assert await child.stdout.readline() == b"still here\n"
    finally:
        child.kill()
        await child.wait()
