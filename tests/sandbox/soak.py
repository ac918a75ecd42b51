"""Nothing is left of what ran: `python -m tests.sandbox.soak CALLS KILLS MURDERS`, the whole proof with 10000 1000 20.

A real service is called, by several tenants in and without sessions; calls are killed while their tools hang beside daemons;
and the service itself is killed with SIGKILL while all that goes on. We are the subreaper of whatever outlives its parents, so
an orphan cannot hide from us. Prints what was found as JSON; the exit status is 1 when anything was left.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from services.sandbox.drivers.orphans import end_orphans
from services.sandbox.drivers.programs import find_bwrap
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from tests.sandbox.conftest import LIMITS, PYTHON, write_toolset
from tests.valkey import free_port

ROOT = Path(__file__).parents[2]
BWRAP = find_bwrap(None) or Path("bwrap")
PR_SET_CHILD_SUBREAPER = 36
AT_ONCE, SESSIONS = 4, 4
# For a machine that others use, too; what is reported is how long it took.
GONE_WITHIN_S, READY_WITHIN_S = 10.0, 120.0


@dataclass
class Report:
    """What was done, and what was left of it."""

    calls: int = 0
    wrong_answers: int = 0
    kills: int = 0
    murders: int = 0
    left_processes: list[str] = field(default_factory=list)
    leaked_descriptors: int = 0
    left_files: list[str] = field(default_factory=list)
    gone_after_kill_s: list[float] = field(default_factory=list)
    gone_after_murder_s: list[float] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Nothing is left, and nothing was mixed up."""
        return not (self.wrong_answers or self.left_processes or self.leaked_descriptors or self.left_files)


class Soak:
    """One run in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.report = Report()
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        toolset = write_toolset(folder / "toolsets" / "well", command=[PYTHON, "/toolset/server.py", "well"], limits=LIMITS)
        for path in [folder, folder / "toolsets", toolset, *toolset.iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._port = free_port()
        settings = {
            "PORT": self._port,
            "TOOLSETS_DIR": folder / "toolsets",
            "WORKSPACE_DIR": folder / "workspace",
            "MAX_SESSIONS": 2 * AT_ONCE,
            "CRASH_LIMIT": 1000,
            "LOG_LEVEL": "error",
        }
        self._environment = {f"AGENTFLUX_SANDBOX_{name}": str(value) for name, value in settings.items()}
        # The service starts its threads and connections at the first calls; what comes on top of them later is a leak.
        self._settled_descriptors = 0

    async def run(self, calls: int, kills: int, murders: int) -> Report:
        """Everything, in order."""
        for number in range(murders + 1):
            started = self._start()
            service = psutil.Process(started.pid)
            client = SandboxClient(f"127.0.0.1:{self._port}")
            try:
                await _until(client)
                await self._calls(client, AT_ONCE)
                if number == 0:
                    await self._kill(client, service)
                    self._settled_descriptors = service.num_fds()
                await self._calls(client, calls // (murders + 1))
                for _ in range(kills // (murders + 1) // AT_ONCE):
                    await self._kill(client, service)
                await self._end_sessions(client)
                await self._look_for_leaks(service)
                if number < murders:
                    await self._murder(client, started, service)
            finally:
                await client.aclose()
                started.terminate()
                started.wait(30)
                await self._look_for_orphans()
        return self.report

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._environment, "TMPDIR": str(self._temporary)}
        return subprocess.Popen([sys.executable, "-m", "services.sandbox"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)

    async def _calls(self, client: SandboxClient, count: int) -> None:
        async def some(worker: int) -> None:
            for number in range(worker, count, AT_ONCE):
                token = f"token-{self.report.calls}-{worker}"
                # Most in sessions; the others start and end a server each.
                session = "" if number % 50 == 0 else f"s{number % SESSIONS}"
                tool = "daemons" if number % 100 == 0 else "echo"
                said = (await _call(client, tool, token, session=session)).text
                self.report.calls += 1
                self.report.wrong_answers += said != (token if tool == "echo" else "started")

        await asyncio.gather(*(some(worker) for worker in range(AT_ONCE)))

    async def _kill(self, client: SandboxClient, service: psutil.Process) -> None:
        """Calls that hang, cancelled once each has its daemons."""
        before = set(service.children(recursive=True))
        calls = [asyncio.ensure_future(_call(client, "deaf", "")) for _ in range(AT_ONCE)]
        started: set[psutil.Process] = set()

        def complete() -> bool:
            started.update(set(service.children(recursive=True)) - before)
            return sum(_runs_sleep(process) for process in started) == 2 * AT_ONCE

        await _eventually(complete)
        for call in calls:
            call.cancel()
        self.report.gone_after_kill_s.append(await _eventually(lambda: not _running(started)))
        self.report.kills += AT_ONCE

    async def _end_sessions(self, client: SandboxClient) -> None:
        async def end(session: str) -> None:
            with suppress(Unavailable):
                await _call(client, "exit", "", session=session)

        await asyncio.gather(*(end(f"s{number}") for number in range(SESSIONS)))

    async def _look_for_leaks(self, service: psutil.Process) -> None:
        with suppress(AssertionError):
            await _eventually(lambda: not service.children(recursive=True))
        self.report.left_processes += [f"leaked: {_described(process)}" for process in service.children(recursive=True)]
        self.report.leaked_descriptors += max(0, service.num_fds() - self._settled_descriptors)
        self.report.left_files += [path.name for path in self._temporary.iterdir()]

    async def _murder(self, client: SandboxClient, started: subprocess.Popen[bytes], service: psutil.Process) -> None:
        """SIGKILL, while servers idle, start, and hang beside their daemons."""
        await self._calls(client, AT_ONCE)
        calls = [asyncio.ensure_future(_call(client, "deaf", "")) for _ in range(AT_ONCE)]
        await _eventually(lambda: sum(_runs_sleep(process) for process in service.children(recursive=True)) >= AT_ONCE)
        everything = set(service.children(recursive=True))
        calls += [asyncio.ensure_future(_call(client, "echo", "")) for _ in range(2)]
        await asyncio.sleep(0.02)
        started.kill()
        killed = time.monotonic()
        started.wait(10)
        await asyncio.gather(*calls, return_exceptions=True)
        everything |= set(psutil.Process().children(recursive=True))
        # As the next service does first of all, and with each probe.
        await _eventually(lambda: end_orphans(BWRAP) == 0 and not _running(everything))
        self.report.gone_after_murder_s.append(time.monotonic() - killed)
        self.report.murders += 1

    async def _look_for_orphans(self) -> None:
        def left() -> list[psutil.Process]:
            return _running(set(psutil.Process().children(recursive=True)))

        with suppress(AssertionError):
            await _eventually(lambda: not left())
        self.report.left_processes += [f"orphan: {_described(process)}" for process in left()]


def _running(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there, after we buried the dead that were left to us."""
    for process in processes:
        with suppress(ChildProcessError, ProcessLookupError):
            os.waitpid(process.pid, os.WNOHANG)
    return [process for process in processes if process.is_running()]


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}"
    except psutil.Error as error:
        return str(error)


def _runs_sleep(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] == ["sleep"]
    except psutil.Error:
        return False


async def _eventually(holds: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < GONE_WITHIN_S, f"not within {GONE_WITHIN_S} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def _until(client: SandboxClient) -> None:
    waited = time.monotonic()
    while (problem := await client.ready()) is not None:
        assert time.monotonic() - waited < READY_WITHIN_S, problem
        await asyncio.sleep(0.05)


async def _call(client: SandboxClient, tool: str, text: str, *, session: str = "") -> ToolResult:
    spec = ToolCallSpec(toolset="well", tool=tool, arguments=json.dumps({"text": text}), session_id=session)
    return await client.call_tool(spec, timeout_s=30)


def soak(calls: int, kills: int, murders: int) -> Report:
    """Runs it; from here on this process adopts what its descendants leave behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="agentflux-soak-") as folder:
        return asyncio.run(Soak(Path(folder)).run(calls, kills, murders))


def main() -> int:
    """Entry point; the three numbers are arguments."""
    report = soak(*(int(argument) for argument in sys.argv[1:4]))
    found = asdict(report)
    for name in ("gone_after_kill_s", "gone_after_murder_s"):
        found[name] = {"median": sorted(found[name])[len(found[name]) // 2], "most": max(found[name])} if found[name] else None
    print(json.dumps(found, indent=2))
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
