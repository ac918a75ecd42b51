"""The servers that were started and are not gone yet, and how they died: a toolset whose servers keep dying gets no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from services.sandbox.crashes import CrashLoops
from services.sandbox.drivers.driver import Driver
from services.sandbox.errors import CrashLoop, SandboxError, ServerDied, ToolsDiffer
from services.sandbox.metrics import SandboxMetrics
from services.sandbox.process import McpServer
from services.sandbox.sessions import Session
from services.sandbox.toolsets import Toolset


class Servers:
    """Servers by their place in the table of sessions. Times are seconds of `clock`.

    Deaths at start count against the toolset, deaths in calls against the tenant who made the call.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        workspace: Path,
        crashes: CrashLoops,
        metrics: SandboxMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._workspace = workspace
        self._crashes = crashes
        self._metrics = metrics
        self._clock = clock
        self._running: dict[Session, McpServer] = {}
        metrics.servers.set_function(lambda: len(self._running))

    def running(self) -> list[McpServer]:
        """Those that run now, or are on their way out."""
        return list(self._running.values())

    def of(self, session: Session) -> McpServer | None:
        """The session's server; None once nothing of it is left."""
        return self._running.get(session)

    def launch(self, session: Session, toolset: Toolset, *, on_end: Callable[[Session], None]) -> McpServer:
        """Starts a server in the background; `on_end` is called when nothing of it is left."""
        server = McpServer(toolset, driver=self._driver, workspace=self._workspace)
        self._running[session] = server
        self._crashes.begin((toolset.version,))

        def forget() -> None:
            del self._running[session]
            self._crashes.let_go((toolset.version,))
            on_end(session)

        server.start(on_end=forget, on_settled=partial(self._note_start, toolset))
        return server

    def end(self, session: Session) -> None:
        """Kills the session's server; harmless when it is gone."""
        if session in self._running:
            self._running[session].kill()

    async def aclose(self) -> None:
        """Kills every server and waits until nothing of them is left."""
        servers = self.running()
        for server in servers:
            server.kill()
        await asyncio.gather(*(server.gone() for server in servers))

    def may_start(self, toolset: Toolset) -> bool:
        """False while its servers died at every start."""
        return self._crashes.rest_s((toolset.version,), self._clock()) is None

    def require_stable(self, toolset: Toolset, *tenant: str) -> None:
        """Raises CrashLoop while servers of the toolset died at every start, or, given a tenant, in every call of that tenant."""
        key = (toolset.version, *tenant)
        if (rest_s := self._crashes.rest_s(key, self._clock())) is not None:
            deaths, why = self._crashes.why(key)
            whose = f" in calls of tenant {tenant[0]!r}" if tenant else ""
            raise CrashLoop(
                f"servers of toolset {toolset.name!r} died {deaths} times in a row{whose}, so no call is run for another "
                f"{rest_s:.3g} s; the last time, {why}",
                retry_after=rest_s,
            )

    def call_begins(self, toolset: Toolset, tenant: str) -> None:
        """A call of the tenant is about to run."""
        self._crashes.begin((toolset.version, tenant))

    def call_ended(self, toolset: Toolset, tenant: str, error: BaseException | None, *, known: bool) -> None:
        """And ended; only a result, and a death that is not `known` yet, say anything about the next one."""
        key = (toolset.version, tenant)
        if error is None:
            self._crashes.lived(key)
        elif isinstance(error, ServerDied) and not known:
            self._note_death(toolset, key, error)
        else:
            self._crashes.let_go(key)

    def sweep(self) -> None:
        """Forgets deaths of long ago."""
        self._crashes.forget(self._clock())

    def _note_start(self, toolset: Toolset, failure: SandboxError | None) -> None:
        # One that lists other tools came up well; it is refused for another reason, which a person has to look at.
        if failure is None or isinstance(failure, ToolsDiffer):
            self._crashes.lived((toolset.version,))
        else:
            self._note_death(toolset, (toolset.version,), failure)

    def _note_death(self, toolset: Toolset, key: tuple[str, ...], error: SandboxError) -> None:
        if self._crashes.died(key, error.message, self._clock()):
            self._metrics.crash_loops.labels(self._metrics.toolset(toolset.name)).inc()
