"""The servers that run now: carries out what `sessions` decides, and makes sure that each call ends and each server dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from services.sandbox.drivers.driver import Driver
from services.sandbox.errors import CallTimedOut, SandboxBusy
from services.sandbox.metrics import SandboxMetrics, reason_of
from services.sandbox.process import McpServer
from services.sandbox.sessions import Full, Reuse, Session, Sessions, Start
from services.sandbox.toolsets import Toolset

SWEEP_INTERVAL_S = 1.0


class ServerPool:
    """Servers by session. Times are seconds of `clock`."""

    def __init__(
        self,
        *,
        driver: Driver,
        workspace: Path,
        sessions: Sessions,
        metrics: SandboxMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._workspace = workspace
        self._sessions = sessions
        self._metrics = metrics
        self._clock = clock
        self._servers: dict[Session, McpServer] = {}
        metrics.servers.set_function(lambda: len(self._servers))

    @asynccontextmanager
    async def server(self, toolset: Toolset, session_id: str, *, wall_s: float) -> AsyncGenerator[tuple[McpServer, bool], None]:
        """A ready server for one call of at most `wall_s` seconds, and whether this call started it.

        A call that fails or is cancelled inside takes its server with it: nobody knows what a hung tool still does.

        Raises:
            SandboxBusy: no room for another server.
            CallTimedOut: the time was over.
            SandboxError: the server did not become ready.
        """
        session, cold = self._place(toolset, session_id)
        server = self._servers[session]
        try:
            async with asyncio.timeout(wall_s):
                await server.ready()
                yield server, cold
        except TimeoutError:
            error = CallTimedOut(
                f"a call to toolset {toolset.name!r} did not end within {wall_s:.3g} s, so its server was killed: give it a "
                f"later deadline, or raise wall_s in toolset.yaml (now {toolset.limits.wall_s:g} s)"
            )
            self._give_up(session, error)
            raise error from None
        except BaseException as error:
            self._give_up(session, error)
            raise
        finally:
            if self._sessions.release(session, self._clock()) or not server.is_sound:
                self._end(session)

    def servers(self) -> list[McpServer]:
        """Those that run now, or are on their way out."""
        return list(self._servers.values())

    async def sweep(self) -> None:
        """Ends servers whose time is over, for as long as the service runs."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            for session in self._sessions.expired(self._clock()):
                self._end(session)

    async def aclose(self) -> None:
        """Ends every server and waits until nothing of them is left."""
        servers = self.servers()
        for session in list(self._servers):
            self._end(session)
        await asyncio.gather(*(server.gone() for server in servers))

    def _place(self, toolset: Toolset, session_id: str) -> tuple[Session, bool]:
        match self._sessions.plan(toolset.name, session_id, self._clock()):
            case Reuse(session) if self._servers[session].is_sound:
                return session, False
            case Reuse(session):
                # It died while nobody called it.
                self._sessions.remove(session)
                return self._place(toolset, session_id)
            case Full(running):
                raise SandboxBusy(
                    f"{running} servers are running, each with a call in flight: try again, or raise "
                    "AGENTFLUX_SANDBOX_MAX_SESSIONS"
                )
            case Start(session, evict):
                if evict is not None:
                    self._end(evict)
                server = McpServer(toolset, driver=self._driver, workspace=self._workspace)
                self._servers[session] = server
                server.start(on_end=lambda: self._forget(session))
                return session, True

    def _give_up(self, session: Session, error: BaseException) -> None:
        self._sessions.retire(session)
        self._metrics.kills.labels(session.key.toolset, reason_of(error)).inc()

    def _end(self, session: Session) -> None:
        self._sessions.remove(session)
        if session in self._servers:
            self._servers[session].kill()

    def _forget(self, session: Session) -> None:
        self._sessions.remove(session)
        self._servers.pop(session, None)
