"""Runs a turn for its reply, or beside a streamed one: the deadline, the first event, the silences, and the end of it all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol

import anyio
import structlog

from services.gateway.admission import Admission, Refused
from services.gateway.api.callers import Visit, visit
from services.gateway.api.headers import tell_about
from services.gateway.api.pauses import BeforeWaiting
from services.gateway.events import Event
from services.gateway.keys import Caller
from services.gateway.limits import Meter
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.records.record import TurnRecord
from services.gateway.toolsets import Catalogue
from services.gateway.wire.requests import ChatRequest, Sender
from services.shared.chassis.telemetry import describe, exemplar
from services.shared.contracts import semconv
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded
from services.shared.contracts.usage import Usage

log = structlog.get_logger()


class Listener(Protocol):
    """Whoever is told a turn as it happens."""

    def take(self, event: Event) -> None: ...

    async def flush(self) -> None:
        """Awaited when all was taken that there is for now; not at the end."""

    async def keep_alive(self) -> None:
        """Awaited when nothing has happened for `keepalive_s`."""


class Watcher(Protocol):
    """Whoever wants to know of turns, such as the decision log. It may not wait, and must not fail."""

    def began(self, turn: TurnRecord) -> None: ...

    def ended(self, turn: TurnRecord) -> None:
        """A turn ended well; one that failed or was cancelled is not told."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Turns:
    """Starts turns with the deadlines of the settings; `watchers` learn of those with a chat request."""

    pipeline: Pipeline
    metrics: GatewayMetrics
    request_timeout_s: float
    keepalive_s: float
    watchers: Sequence[Watcher] = ()
    admission: Admission = field(default_factory=Admission)

    def start(self, request: ChatRequest, *, private: bool = True) -> Turn:
        """Starts a turn; its events wait until they are read. A `private` one never leaves the premises.

        Raises:
            Forbidden: the caller's key is not good for this toolset.
        """
        _permit(visit().caller, request, self.pipeline.catalogue)
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        record = TurnRecord(request, request_id=request_id, caller=visit().caller.name)
        for watcher in self.watchers:
            watcher.began(record)
        events = self.pipeline.run(replace(request, sender=Sender(private, visit().caller.name)))
        return Turn(self, events, record)

    async def count_tokens(self, request: ChatRequest) -> int:
        """The prompt's tokens, without a turn, but in the place of one and within the request's time.

        Raises:
            Forbidden: the caller's key is not good for this toolset.
            Refused: there is no place.
            DeadlineExceeded: the request's time is over.
        """
        _permit(visit().caller, request, self.pipeline.catalogue)
        left_s = self.time_left_s(visit())
        place = self.admission.place(visit().caller.name, continues=_continues(request), time_left_s=left_s)
        try:
            async with asyncio.timeout(left_s), place:
                return await self.pipeline.count_tokens(request)
        except TimeoutError:
            raise self.too_long() from None
        except Refused as error:
            self.metrics.refused.labels(error.reason).inc()
            raise

    def time_left_s(self, visit: Visit) -> float:
        """Seconds that the request of `visit` still has."""
        return visit.since + self.request_timeout_s - time.monotonic()

    def too_long(self) -> DeadlineExceeded:
        """What a request fails of that has no time left."""
        return DeadlineExceeded(f"the request took longer than {self.request_timeout_s:g} s (setting request_timeout_s)")

    def run(self, events: AsyncGenerator[Event]) -> Turn:
        """Starts a turn whose events come from somewhere else than the pipeline: from the base model.

        Raises:
            Forbidden: the caller's key is not good for the base model.
        """
        visit().caller.permit(None)
        return Turn(self, events, TurnRecord())


class Turn:
    """One turn, which is either awaited as a `whole`, or runs beside its reply from `begin` to the end of its context: leaving
    that cancels whatever of it still runs, down to the engine.

    `record` is what is known of it; the ids of its replies end with `record.id`.
    """

    def __init__(self, turns: Turns, events: AsyncGenerator[Event], record: TurnRecord) -> None:
        self._turns = turns
        self.record = record
        self._visit = visit()
        tell_about(record)
        self._source = events
        self._loop = asyncio.get_running_loop()
        self._last_event = self._loop.time()
        self._has_begun, self._is_heard = asyncio.Event(), asyncio.Event()
        self._take: Callable[[Event], object] | None = None
        self._listener: Listener | None = None
        self._is_flushing = False
        self._task: asyncio.Task[AgentFluxError | None] | None = None

    async def whole(self, take: Callable[[Event], object]) -> None:
        """Runs the turn to its end and gives its events to `take`. Whoever is cancelled here cancels the turn.

        Raises:
            AgentFluxError: the turn failed.
        """
        self._take = take
        if (failure := await self._run(self._source)) is not None:
            raise failure

    async def begin(self) -> None:
        """Starts the turn and waits for its first event, but no longer than clients bear silence.

        Raises:
            AgentFluxError: the turn failed before its first event.
        """
        self._task = asyncio.create_task(self._run(BeforeWaiting(self._source, self._pause)))
        self._task.add_done_callback(lambda _: self._has_begun.set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._turns.keepalive_s):
                await self._has_begun.wait()
        self._last_event = self._loop.time()
        if self._task.done() and (failure := self._task.result()) is not None:
            raise failure

    async def tell(self, listener: Listener) -> AgentFluxError | None:
        """Tells `listener` every event as it happens, in the task in which it does: a queue between two costs more than all else
        that a frame needs. Returns what the turn failed of.
        """
        assert self._task is not None, "a turn begins before it is told"
        self._take, self._listener = listener.take, listener
        self._is_heard.set()
        keepalive_s = self._turns.keepalive_s
        while not self._task.done():
            await asyncio.wait({self._task}, timeout=self._last_event + keepalive_s - self._loop.time())
            if self._task.done() or (now := self._loop.time()) < self._last_event + keepalive_s:
                continue
            self._last_event = now
            # A reader that has something to read does not wait in silence.
            if not self._is_flushing:
                await listener.keep_alive()
        return self._task.result()

    async def aclose(self) -> None:
        """Cancels what still runs, and waits until it is gone."""
        if self._task is not None:
            self._task.cancel()
            # A cancelled scope repeats its cancellation at every await, and awaiting the task would hand that on to it in the
            # middle of closing its connections.
            with anyio.CancelScope(shield=True):
                await asyncio.wait({self._task})
        # The listener knows its turn: the two would stay in memory until the collector finds them, which is seldom.
        self._take = self._listener = None

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _pause(self) -> None:
        if self._listener is not None:
            self._is_flushing = True
            await self._listener.flush()
            self._is_flushing = False
            self._last_event = self._loop.time()
            self.record.timing.go_on()

    def _place(self) -> AbstractAsyncContextManager[None]:
        request = self.record.request
        return self._turns.admission.place(
            self._visit.caller.name,
            continues=request is not None and _continues(request),
            time_left_s=self._turns.time_left_s(self._visit),
        )

    async def _run(self, events: AsyncIterator[Event]) -> AgentFluxError | None:
        """Has all events taken; returns what the turn failed of."""
        started, outcome = time.perf_counter(), "error"
        end: AgentFluxError | None = None
        meter = Meter()
        try:
            # Closed here and not when it is collected: a client that left may have left us waiting for its reading.
            async with asyncio.timeout(self._turns.time_left_s(self._visit)), aclosing(self._source), self._place():
                self.record.timing.admitted()
                self._turns.metrics.admission_wait.observe(time.perf_counter() - started)
                async for event in events:
                    meter.note(event)
                    # An answer stays one, chunk by chunk.
                    if outcome != "answer":
                        if outcome == "error":
                            self._turns.metrics.first_event.observe(time.perf_counter() - started, exemplar())
                        outcome = self._turns.metrics.observe(event) or ("open" if outcome == "error" else outcome)
                    self.record.note(event)
                    if self._take is None:
                        self._has_begun.set()
                        await self._is_heard.wait()
                        assert self._take is not None
                    self._take(event)
                    self.record.timing.go_on()
        except TimeoutError:
            end = self._turns.too_long()
        except AgentFluxError as error:
            if isinstance(error, Refused):
                self._turns.metrics.refused.labels(error.reason).inc()
            end = error
        except Exception:
            log.exception("turn failed")
            end = AgentFluxError("internal error; the logs have it under this request's id")
        finally:
            self._visit.charge(meter.usage)
        self._turns.metrics.turns.labels("error" if end else outcome).inc()
        self._describe(meter.usage, end.code if end else outcome)
        if end is None and self.record.request is not None:
            for watcher in self._turns.watchers:
                watcher.ended(self.record)
        return end

    def _describe(self, usage: Usage, outcome: str) -> None:
        request = self.record.request
        describe(
            {
                semconv.OPERATION: semconv.CHAT,
                semconv.REQUEST_MODEL: request.model if request else None,
                semconv.REQUEST_STREAM: request.stream if request else None,
                semconv.RESPONSE_ID: self.record.id,
                semconv.TOOLSET: next((each.selected.toolset for each in self.record.decided), None),
                semconv.OUTCOME: outcome,
                semconv.INPUT_TOKENS: usage.prompt_tokens,
                semconv.OUTPUT_TOKENS: usage.completion_tokens,
            }
        )


def _continues(request: ChatRequest) -> bool:
    """Whether it belongs to a running tool loop."""
    return request.messages[-1].get("role") == "tool"


def _permit(caller: Caller, request: ChatRequest, catalogue: Catalogue) -> None:
    """The toolset counts by the name that was asked for, and by the tools: they decide whose adapters work."""
    if caller.toolsets is None and caller.base_model:
        return
    toolset = catalogue.toolset_of(request.tools)
    caller.permit(toolset.name if toolset else None)
    if request.model != catalogue.base_model:
        caller.permit(request.model)
