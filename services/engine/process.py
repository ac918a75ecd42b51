"""Keeps one vLLM running: starts it, watches that it answers, starts it again when it died, and drains it at the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from services.engine.backoff import GOOD_RUN_S, pause_s
from services.engine.events import EngineEvent, parse_event
from services.engine.launch import Launch
from services.engine.loglines import parse_log_line
from services.engine.transport import VllmProbe

log = structlog.get_logger()

State = Literal["starting", "ready", "restarting", "stopping"]

# The last line of a traceback, which is where Python says what was wrong. (vLLM adds errors which only say "see above".)
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")

_ASK_EVERY_S = 0.5
# vLLM's own door does no computing, so a silence this long means that it hangs.
_HANG_S = 60.0
# What vLLM may need to end after its drain is over; measured up to 14 s on a busy machine.
_TEARDOWN_S = 20.0


@dataclass
class Standing:
    """What the engine is doing, for whoever asks; `reason` says why it is not ready."""

    state: State = "starting"
    reason: str = "vLLM has not been started yet"
    pid: int | None = None
    restarts: int = 0
    ready_after_s: float | None = None


@dataclass
class VllmProcess:
    """vLLM as a supervised child. `run` is the whole life; `standing` can be read at any time.

    `plan` is asked before every start, because what is published by then decides for how many adapters there is room.
    """

    plan: Callable[[], Launch]
    probe: VllmProbe
    obstacle: Callable[[], str | None]
    socket: Path | None
    start_timeout_s: float
    drain_timeout_s: float
    on_event: Callable[[EngineEvent], None] = lambda _: None
    standing: Standing = field(default_factory=Standing)
    _last_error: str = ""

    async def run(self) -> None:
        """Supervises until it is cancelled; then lets vLLM finish what it is doing, and ends it."""
        failures = 0
        while True:
            started = time.monotonic()
            ended = self.obstacle() or await self._one_run()
            failures = 1 if time.monotonic() - started > GOOD_RUN_S and self.standing.state == "ready" else failures + 1
            wait = pause_s(failures)
            log.error("vLLM is not running", reason=ended, next_start_in_s=wait)
            self.standing.state, self.standing.pid = "restarting", None
            self.standing.reason = f"vLLM is started again in {wait:g} s: {ended}"
            await asyncio.sleep(wait)
            self.standing.restarts += 1

    async def _one_run(self) -> str:
        """One life of vLLM, from start to exit; says how it ended."""
        # vLLM makes some sockets for its own processes at every start and never removes them.
        with tempfile.TemporaryDirectory(prefix="agentflux-vllm-", ignore_cleanup_errors=True) as sockets:
            return await self._until_it_ends(await self._spawn(sockets))

    async def _until_it_ends(self, process: Process) -> str:
        reader = asyncio.create_task(self._read_logs(process))
        watcher = asyncio.create_task(self._watch())
        exited = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({watcher, exited}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return f"it ended with {_exit(process.returncode)}{self._last_error}"
            return watcher.result()
        except asyncio.CancelledError:
            await self._drain(process)
            raise
        finally:
            watcher.cancel()
            _kill_group(process)
            await exited
            await reader

    async def _spawn(self, sockets: str) -> Process:
        if self.socket is not None:
            self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # vLLM never removes its socket, and does not start while one is there.
            self.socket.unlink(missing_ok=True)
        self._last_error = ""
        # A session of its own, so that a Ctrl-C for us does not cut it short and what it leaves behind can be found.
        launch = await asyncio.to_thread(self.plan)
        process = await asyncio.create_subprocess_exec(
            *launch.argv, env={**launch.env, "VLLM_RPC_BASE_PATH": sockets}, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, limit=1024 * 1024,
        )  # fmt: skip
        self.standing.state, self.standing.pid = "starting", process.pid
        self.standing.reason = "vLLM is loading the model"
        log.info("vLLM started", pid=process.pid, command=" ".join(launch.argv))
        return process

    async def _watch(self) -> str:
        """Follows vLLM's health; returns, saying why, only when it has to be killed."""
        started = answered = time.monotonic()
        while True:
            await asyncio.sleep(_ASK_EVERY_S)
            complaint = await self.probe.complaint()
            now = time.monotonic()
            if complaint is None:
                answered = now
                if self.standing.state != "ready":
                    self._became_ready(now - started)
            elif self.standing.state != "ready" and now - started > self.start_timeout_s:
                return f"it did not answer within {self.start_timeout_s:g} s of its start (AGENTFLUX_ENGINE_START_TIMEOUT_S)"
            elif self.standing.state == "ready" and now - answered > _HANG_S:
                return f"it has been unwell for {_HANG_S:g} s: {complaint}"

    def _became_ready(self, after_s: float) -> None:
        self.standing.state, self.standing.reason, self.standing.ready_after_s = "ready", "", round(after_s, 1)
        self._last_error = ""
        log.info("vLLM is ready", after_s=self.standing.ready_after_s)

    async def _read_logs(self, process: Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # A line longer than the limit; asyncio has dropped it.
            if not line:
                return
            said = parse_log_line(line.decode("utf-8", "replace"))
            if event := parse_event(said.message):
                self.on_event(event)
                log.info(event.event, **event.model_dump(exclude={"event"}))
                continue
            if (said.level == "error" or _EXCEPTION.match(said.message)) and "above" not in said.message:
                self._last_error = f"; its last error was: {said.message:.500}"
            if said.message.strip():
                getattr(log, said.level)(said.message, process=said.process, where=said.where)

    async def _drain(self, process: Process) -> None:
        loading = self.standing.state != "ready"
        self.standing.state, self.standing.reason = "stopping", "the engine is stopping"
        # While it loads it has nothing to finish, and minds SIGTERM only when it is done.
        if loading or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.drain_timeout_s + _TEARDOWN_S):
                await process.wait()
        except TimeoutError:
            log.error("vLLM did not end in time and is killed", pid=process.pid)


def _kill_group(process: Process) -> None:
    # Also after a clean exit: whatever is left of its session would hold memory, the socket and our log pipe.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _exit(code: int | None) -> str:
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
