"""Gets each call a server and takes it back: carries out what `sessions` and `queue` decide, and ends what has to go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from services.sandbox.errors import CallTimedOut, SandboxBusy, SandboxError
from services.sandbox.metrics import SandboxMetrics, reason_of
from services.sandbox.process import McpServer
from services.sandbox.queue import FairQueue, Fit
from services.sandbox.scopes import SessionKey, session_key
from services.sandbox.servers import Servers
from services.sandbox.sessions import Adopt, Full, Occupied, Reuse, Session, Sessions, Start
from services.sandbox.toolsets import Toolset

SWEEP_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Placed:
    """A call's server; `cold` says that the call has to wait for its start."""

    session: Session
    server: McpServer
    cold: bool


@dataclass(eq=False)
class Waiting:
    """A call in the queue; `place` becomes its server, or the reason why it gets none."""

    toolset: Toolset
    key: SessionKey
    place: asyncio.Future[Placed]


class ServerPool:
    """Servers for calls. Times are seconds of `clock`."""

    def __init__(
        self,
        *,
        servers: Servers,
        sessions: Sessions,
        queue: FairQueue[Waiting],
        metrics: SandboxMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._sessions = sessions
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._spare_taken = asyncio.Event()
        metrics.waiting.set_function(lambda: len(self._queue))

    @asynccontextmanager
    async def server(
        self, toolset: Toolset, tenant: str, session_id: str, *, wall_s: float
    ) -> AsyncGenerator[tuple[McpServer, bool], None]:
        """A ready server for one call of at most `wall_s` seconds, and whether the call had to wait for its start.

        A call that fails or is cancelled inside takes its server with it: nobody knows what a hung tool still does.

        Raises:
            SandboxBusy: no server had room for the call in that time, or too many calls wait already. It was not started.
            CrashLoop: the toolset's servers keep dying.
            CallTimedOut: the time was over.
            SandboxError: the server did not become ready.
        """
        ends = asyncio.get_running_loop().time() + wall_s
        self._servers.require_stable(toolset, tenant)
        placed = await self._place(toolset, session_key(toolset, tenant, session_id), tenant, ends)
        failed: BaseException | None = None
        self._servers.call_begins(toolset, tenant)
        try:
            async with asyncio.timeout_at(ends):
                await placed.server.ready()
                yield placed.server, placed.cold
        except TimeoutError:
            failed = CallTimedOut(
                f"a call to toolset {toolset.name!r} did not end within {wall_s:.3g} s, so its server was killed: give it a "
                f"later deadline, or raise wall_s in toolset.yaml (now {toolset.limits.wall_s:g} s)"
            )
            raise failed from None
        except BaseException as error:
            failed = error
            raise
        finally:
            # A start that failed was counted there, and a death is one, however many calls it took along.
            known = placed.session.retired or not placed.server.is_ready
            self._servers.call_ended(toolset, tenant, failed, known=known)
            if failed is not None:
                self._sessions.retire(placed.session)
                self._metrics.kills.labels(self._metrics.toolset(toolset.name), reason_of(failed)).inc()
            self._release(placed)

    def servers(self) -> list[McpServer]:
        """Those that run now, or are on their way out."""
        return self._servers.running()

    def has_server(self, toolset: Toolset, tenant: str, session_id: str) -> bool:
        """Whether such a call would get a server that has been started already."""
        return self._sessions.has_server(session_key(toolset, tenant, session_id), self._clock())

    def require_stable(self, toolset: Toolset) -> None:
        """Raises CrashLoop while servers of the toolset died at every start."""
        self._servers.require_stable(toolset)

    async def sweep(self, versions: Callable[[], Mapping[str, str]]) -> None:
        """Ends servers whose time is over, and those of toolsets whose version changed, for as long as the service runs."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._sessions.outdate(versions())
            for session in self._sessions.expired(self._clock()):
                self._servers.end(session)
            self._servers.sweep()
            self._serve_queue()

    async def keep_warm(self, toolsets: Callable[[], list[Toolset]]) -> None:
        """Starts spare servers of `toolsets`, for as long as the service runs."""
        while True:
            self._spare_taken.clear()
            for toolset in toolsets():
                await self._refill(toolset)
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_INTERVAL_S):
                    await self._spare_taken.wait()

    async def aclose(self) -> None:
        """Ends every server and waits until nothing of them is left."""
        await self._servers.aclose()

    async def _place(self, toolset: Toolset, key: SessionKey, tenant: str, ends: float) -> Placed:
        if not self._queue and isinstance(found := self._try(toolset, key), Placed):
            return found
        loop = asyncio.get_running_loop()
        joined = loop.time()
        waiting = Waiting(toolset, key, loop.create_future())
        if (refusal := self._queue.join(tenant, waiting)) is not None:
            raise SandboxBusy(f"every server is at work, and {refusal}: try again, or raise AGENTFLUX_SANDBOX_MAX_SESSIONS")
        self._serve_queue()
        try:
            async with asyncio.timeout_at(ends):
                return await waiting.place
        except BaseException as error:
            if waiting.place.done() and not waiting.place.cancelled() and waiting.place.exception() is None:
                # It got its server in the very moment in which it was cancelled.
                self._release(waiting.place.result())
            if not isinstance(error, TimeoutError):
                raise
            raise SandboxBusy(
                f"every server was at work for {loop.time() - joined:.3g} s, which is all the time that the call to toolset "
                f"{toolset.name!r} had; it was not started: try again, or raise AGENTFLUX_SANDBOX_MAX_SESSIONS"
            ) from None
        finally:
            self._queue.leave(tenant, waiting)
            self._metrics.queue.observe(loop.time() - joined)
            self._serve_queue()

    def _serve_queue(self) -> None:
        self._queue.serve(self._offer)

    def _offer(self, waiting: Waiting, may_take_place: bool) -> Fit:
        if not waiting.place.done():
            if not may_take_place and not self._sessions.has_server(waiting.key, self._clock()):
                return Fit.NOT_YET
            try:
                found = self._try(waiting.toolset, waiting.key)
            except SandboxError as error:
                waiting.place.set_exception(error)
                return Fit.PLACED
            if not isinstance(found, Placed):
                return Fit.NO_ROOM if isinstance(found, Full) else Fit.NOT_YET
            waiting.place.set_result(found)
        return Fit.PLACED

    def _try(self, toolset: Toolset, key: SessionKey) -> Placed | Full | Occupied:
        """A server now, with the call in flight from here, or why there is none yet."""
        now = self._clock()
        if not self._sessions.has_server(key, now):
            self._servers.require_stable(toolset)
        plan = self._sessions.plan(key, now)
        if isinstance(plan, Full | Occupied):
            return plan
        server = self._servers.of(plan.session)
        if isinstance(plan, Start):
            if plan.evict is not None:
                self._servers.end(plan.evict)
            server = self._servers.launch(plan.session, toolset, on_end=self._forget)
        elif server is None or not server.is_sound:
            # It died while nobody called it.
            self._sessions.remove(plan.session)
            return self._try(toolset, key)
        if isinstance(plan, Adopt):
            self._spare_taken.set()
        self._metrics.taken.labels(self._metrics.toolset(toolset.name), _KINDS[type(plan)]).inc()
        return Placed(plan.session, server, cold=not isinstance(plan, Reuse) and not server.is_ready)

    async def _refill(self, toolset: Toolset) -> None:
        # One start at a time, and none while calls wait: a spare is for later.
        while not self._queue and self._servers.may_start(toolset):
            spare = self._sessions.spare(toolset.name, toolset.version, toolset.warm, self._clock())
            if spare is None:
                return
            with suppress(SandboxError):
                await self._servers.launch(spare, toolset, on_end=self._forget).ready()

    def _release(self, placed: Placed) -> None:
        if self._sessions.release(placed.session, self._clock()) or not placed.server.is_sound:
            self._sessions.remove(placed.session)
            self._servers.end(placed.session)
        self._serve_queue()

    def _forget(self, session: Session) -> None:
        self._sessions.remove(session)
        self._serve_queue()


_KINDS: dict[type, str] = {Reuse: "own", Adopt: "spare", Start: "new"}
