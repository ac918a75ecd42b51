"""Runs a turn for its reply, or beside a streamed one: the deadline, the first event, the silences, and the end of it all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from enum import Enum
from types import TracebackType
from typing import Protocol

import anyio
import structlog

from services.gateway.admission import Admission, Refused
from services.gateway.api.callers import visit
from services.gateway.api.headers import tell_about
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


class _Mark(Enum):
    SILENCE = "nothing happened for keepalive_s"
    END = "the turn is over"


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
        """The prompt's tokens, without a turn.

        Raises:
            Forbidden: the caller's key is not good for this toolset.
        """
        _permit(visit().caller, request, self.pipeline.catalogue)
        return await self.pipeline.count_tokens(request)

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
        self._events: asyncio.Queue[Event | AgentFluxError | _Mark] = asyncio.Queue(maxsize=64)
        self._peeked: list[Event | AgentFluxError | _Mark] = []
        self._loop = asyncio.get_running_loop()
        self._last_event = self._loop.time()
        self._ticker: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        # Awaited whenever there is nothing more to read now, or at all.
        self.pausing: Callable[[], Awaitable[None]] | None = None

    async def whole(self, take: Callable[[Event], object]) -> None:
        """Runs the turn to its end and gives its events to `take`. Whoever is cancelled here cancels the turn.

        Raises:
            AgentFluxError: the turn failed.
        """

        async def put(event: Event) -> None:
            take(event)

        if (failure := await self._run(put)) is not None:
            raise failure

    async def begin(self) -> None:
        """Starts the turn and waits for its first event, but no longer than clients bear silence.

        Raises:
            AgentFluxError: the turn failed before its first event.
        """
        self._task = asyncio.create_task(self._run_beside())
        # One timer a turn: a timeout around each wait for an event is a tenth of what it costs to forward one.
        self._ticker = self._loop.call_later(self._turns.keepalive_s, self._tick)
        first = await self._events.get()
        if isinstance(first, AgentFluxError):
            raise first
        if first is not _Mark.SILENCE:
            self._peeked.append(first)

    async def events_or_silence(self) -> AsyncIterator[Event | None]:
        """The events as they happen, and None for every silence of `keepalive_s`."""
        while True:
            if self._peeked:
                item = self._peeked.pop()
            else:
                if self.pausing is not None and self._events.empty():
                    await self.pausing()
                item = await self._events.get()
            if isinstance(item, AgentFluxError):
                raise item
            if item is _Mark.END:
                if self.pausing is not None:
                    await self.pausing()
                return
            yield None if isinstance(item, _Mark) else item

    async def aclose(self) -> None:
        """Cancels what still runs, and waits until it is gone."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._task is not None:
            self._task.cancel()
            # A cancelled scope repeats its cancellation at every await, and awaiting the task would hand that on to it in the
            # middle of closing its connections.
            with anyio.CancelScope(shield=True):
                await asyncio.wait({self._task})

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _tick(self) -> None:
        now, keepalive_s = self._loop.time(), self._turns.keepalive_s
        if now - self._last_event >= keepalive_s:
            self._last_event = now
            # A reader that has something to read does not wait in silence.
            if self._events.empty():
                self._events.put_nowait(_Mark.SILENCE)
        self._ticker = self._loop.call_at(self._last_event + keepalive_s, self._tick)

    async def _run_beside(self) -> None:
        failure = await self._run(self._put)
        await self._put(failure or _Mark.END)

    async def _put(self, item: Event | AgentFluxError | _Mark) -> None:
        self._last_event = self._loop.time()
        await self._events.put(item)

    def _place(self) -> AbstractAsyncContextManager[None]:
        request = self.record.request
        return self._turns.admission.place(
            self._visit.caller.name,
            continues=request is not None and request.messages[-1].get("role") == "tool",
            time_left_s=self._turns.request_timeout_s,
        )

    async def _run(self, put: Callable[[Event], Awaitable[None]]) -> AgentFluxError | None:
        """Hands all events to `put`; returns what the turn failed of."""
        started, outcome = time.perf_counter(), "error"
        end: AgentFluxError | None = None
        meter = Meter()
        try:
            # Closed here and not when it is collected: a client that left may have left us waiting for room in the queue.
            async with asyncio.timeout(self._turns.request_timeout_s), aclosing(self._source) as events, self._place():
                self.record.timing.admitted()
                self._turns.metrics.admission_wait.observe(time.perf_counter() - started)
                async for event in events:
                    meter.note(event)
                    if outcome == "error":
                        self._turns.metrics.first_event.observe(time.perf_counter() - started, exemplar())
                    outcome = self._turns.metrics.observe(event) or ("open" if outcome == "error" else outcome)
                    self.record.note(event)
                    await put(event)
                    self.record.timing.go_on()
        except TimeoutError:
            end = DeadlineExceeded(
                f"the request took longer than {self._turns.request_timeout_s:g} s (setting request_timeout_s)"
            )
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


def _permit(caller: Caller, request: ChatRequest, catalogue: Catalogue) -> None:
    """The toolset counts by the name that was asked for, and by the tools: they decide whose adapters work."""
    if caller.toolsets is None and caller.base_model:
        return
    toolset = catalogue.toolset_of(request.tools)
    caller.permit(toolset.name if toolset else None)
    if request.model != catalogue.base_model:
        caller.permit(request.model)
