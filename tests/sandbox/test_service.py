"""The service as a process: starts, serves, drains at SIGTERM, and leaves nothing behind even when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec
from tests.valkey import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def process(toolsets: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    port, metrics = free_port(), free_port()
    settings = {"PORT": port, "METRICS_PORT": metrics, "TOOLSETS_DIR": toolsets, "WORKSPACE_DIR": tmp_path / "new" / "workspace"}
    environment = {
        **os.environ,
        "SECRET": "canary",
        **{f"AGENTFLUX_SANDBOX_{key}": str(value) for key, value in settings.items()},
    }
    log = tmp_path / "log"
    with log.open("w") as file:
        running = subprocess.Popen([sys.executable, "-m", "services.sandbox"], cwd=ROOT, env=environment, stderr=file, text=True)
    yield running, port, metrics
    running.kill()
    running.wait()


def read(url: str) -> str:
    with urllib.request.urlopen(url) as page:
        return str(page.read().decode())


async def ready(port: int) -> SandboxClient:
    client = SandboxClient(f"127.0.0.1:{port}")
    with anyio.fail_after(30):
        while await client.ready() is not None:  # noqa: ASYNC110 (another process; there is no event to wait for)
            await anyio.sleep(0.1)
    return client


async def test_it_serves_counts_and_drains(process: tuple[subprocess.Popen[str], int, int]) -> None:
    running, port, metrics = process
    client = await ready(port)
    spec = ToolCallSpec(toolset="well", tool="python", arguments=json.dumps({"text": "sorted(os.environ)"}), session_id="s")
    result = await client.call_tool(spec, timeout_s=10)
    assert "SECRET" not in result.text
    text = await anyio.to_thread.run_sync(read, f"http://127.0.0.1:{metrics}/metrics")
    assert 'agentflux_sandbox_call_duration_seconds_count{outcome="ok",toolset="well"} 1.0' in text
    assert "agentflux_sandbox_servers 1.0" in text
    sandboxes = psutil.Process(running.pid).children(recursive=True)
    assert sandboxes
    running.send_signal(signal.SIGTERM)
    assert running.wait(15) == 0
    assert not any(child.is_running() for child in sandboxes)
    await client.aclose()


async def test_a_killed_service_leaves_no_server_behind(process: tuple[subprocess.Popen[str], int, int]) -> None:
    running, port, _ = process
    client = await ready(port)
    await client.call_tool(ToolCallSpec(toolset="well", tool="daemons", arguments="{}", session_id="s"), timeout_s=10)
    sandboxes = psutil.Process(running.pid).children(recursive=True)
    assert len(sandboxes) >= 4
    running.kill()
    running.wait()
    deadline = time.monotonic() + 2
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in sandboxes):
        assert time.monotonic() < deadline
        await anyio.sleep(0.02)
    await client.aclose()


def test_a_setting_out_of_range_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "AGENTFLUX_SANDBOX_MAX_SESSIONS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "services.sandbox"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("SandboxSettings cannot be used")
    assert "AGENTFLUX_SANDBOX_MAX_SESSIONS" in done.stderr
    assert "Traceback" not in done.stderr
