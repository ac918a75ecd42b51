"""Real processes under the real supervisor: restarted when they die, stopped when told, dead when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.plan import REPOSITORY
from deploy.local.supervisor import State, exclusive, read_state

# One child that lives, one that ends at once.
SCRIPT = """
import asyncio, sys
from pathlib import Path
from deploy.local.plan import Process
from deploy.local.supervisor import Supervisor
processes = [
    Process("steady", [sys.executable, "-c", "import time; time.sleep(600)"], 1),
    Process("broken", ["sh", "-c", "echo I cannot start; exit 3"], 2),
]
asyncio.run(Supervisor(Path(sys.argv[1]), processes).run())
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def running_state(run_dir: Path) -> State:
    eventually(lambda: (s := read_state(run_dir)) is not None and len(s.children) == 2, "two children started")
    state = read_state(run_dir)
    assert state is not None
    return state


def steady_pid(run_dir: Path) -> int:
    eventually(lambda: bool(running_state(run_dir).children["steady"].pid), "the steady child runs")
    pid = running_state(run_dir).children["steady"].pid
    assert pid
    return pid


def test_a_process_that_dies_is_started_again(supervisor: object, tmp_path: Path) -> None:
    first = steady_pid(tmp_path)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: steady_pid(tmp_path) != first, "a new process")


def test_a_process_that_cannot_start_is_counted_and_its_words_are_kept(supervisor: object, tmp_path: Path) -> None:
    eventually(lambda: running_state(tmp_path).children["broken"].exits >= 3, "three ends")
    assert running_state(tmp_path).children["broken"].last_exit == 3
    assert "I cannot start" in (tmp_path / "logs" / "broken.log").read_text()


def test_on_a_full_disk_a_process_that_dies_is_started_again(supervisor: subprocess.Popen[bytes], tmp_path: Path) -> None:
    def child(than: int | None) -> int | None:
        family = psutil.Process(supervisor.pid).children()
        return next((each.pid for each in family if each.pid != than and "time.sleep" in " ".join(each.cmdline())), None)

    first = steady_pid(tmp_path)
    # A folder in the place of the staging file refuses every write, as a full disk does.
    (tmp_path / "state.json.staging").mkdir()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: child(than=first) is not None, "a new process")


def test_nothing_survives_a_killed_supervisor(supervisor: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid = steady_pid(tmp_path)
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the child is gone")
    assert read_state(tmp_path) is None, "what a dead supervisor left behind counts for nothing"


def test_told_to_stop_it_stops_what_it_started_and_clears_up(supervisor: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid = steady_pid(tmp_path)
    supervisor.terminate()
    assert supervisor.wait(timeout=20) == 0
    assert not psutil.pid_exists(pid)
    assert not (tmp_path / "state.json").exists()


def test_two_supervisors_do_not_share_a_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path) as first, exclusive(tmp_path) as second:
        assert (first, second) == (True, False)
