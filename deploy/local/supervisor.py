"""Keeps the processes of a local deployment running: starts, restarts with back-off, stops in reverse order.

Every child is told to die with the supervisor (PR_SET_PDEATHSIG), and each keeps the same promise for its own children, so
that nothing survives a kill -9 of the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from deploy.local.plan import REPOSITORY, Process

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 10.0
# A process that ran this long has started well; its next end is not the same trouble again.
STEADY_S = 30.0
# Longer than any service takes to drain.
STOP_TIMEOUT_S = 90.0


@dataclass
class Child:
    """What is known of one process. `exits` counts its ends since it last ran steadily."""

    name: str
    port: int
    pid: int | None = None
    started: float | None = None
    exits: int = 0
    last_exit: int | None = None


@dataclass
class State:
    """What the supervisor writes to `state.json` whenever it changes."""

    supervisor: int
    supervisor_started: float
    children: dict[str, Child] = field(default_factory=dict)


def read_state(run_dir: Path) -> State | None:
    """The state of a running supervisor; None when none runs here, whatever was left behind."""
    try:
        raw = json.loads((run_dir / "state.json").read_text())
        running = psutil.Process(raw["supervisor"]).create_time() == raw["supervisor_started"]
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    children = {name: Child(**child) for name, child in raw["children"].items()}
    return State(raw["supervisor"], raw["supervisor_started"], children) if running else None


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[bool]:
    """Holds the run folder's lock for as long as it lasts; False when another supervisor holds it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "supervisor.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Supervisor:
    """Runs the processes of a plan until it is told to stop by SIGTERM or SIGINT."""

    def __init__(self, run_dir: Path, processes: Sequence[Process]) -> None:
        self._run_dir = run_dir
        self._processes = processes
        self._state = State(os.getpid(), psutil.Process().create_time())
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Returns when everything has stopped."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        (self._run_dir / "logs").mkdir(parents=True, exist_ok=True)
        keepers = {process.name: asyncio.create_task(self._keep(process)) for process in self._processes}
        await stop.wait()
        # The gateway first: nothing new comes in while what is under way finishes.
        for process in reversed(self._processes):
            keepers[process.name].cancel()
            await asyncio.gather(keepers[process.name], return_exceptions=True)
            await self._stop(process.name)
        (self._run_dir / "state.json").unlink(missing_ok=True)

    async def _keep(self, process: Process) -> None:
        child = self._state.children.setdefault(process.name, Child(process.name, process.port))
        while True:
            running = await self._start(process)
            child.pid, child.started = running.pid, time.time()
            self._write_state()
            child.last_exit = await running.wait()
            child.exits = child.exits + 1 if time.time() - child.started < STEADY_S else 1
            child.pid = None
            self._write_state()
            pause = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (child.exits - 1))
            with contextlib.suppress(OSError):
                print(f"{process.name} ended with code {child.last_exit}; starting it again in {pause:g} s", flush=True)
            await asyncio.sleep(pause)

    async def _start(self, process: Process) -> asyncio.subprocess.Process:
        with (self._run_dir / "logs" / f"{process.name}.log").open("ab") as log:
            self._running[process.name] = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "KILL", "--", *process.argv,
                cwd=REPOSITORY, env={**os.environ, **process.env}, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return self._running[process.name]

    async def _stop(self, name: str) -> None:
        running = self._running.get(name)
        if running is None or running.returncode is not None:
            return
        running.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()

    def _write_state(self) -> None:
        # On a full disk the services are kept running all the same; only `status` does not see what has changed.
        with contextlib.suppress(OSError):
            staging = self._run_dir / "state.json.staging"
            staging.write_text(json.dumps(asdict(self._state), indent=2))
            staging.rename(self._run_dir / "state.json")
