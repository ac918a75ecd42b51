"""Runs a turn beside its reply: the deadline, the first event, the silences between events, and the end of it all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType

import anyio
import structlog

from services.gateway.events import Event
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.requests import ChatRequest
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded

log = structlog.get_logger()


@dataclass(frozen=True)
class Turns:
    """Starts turns with the deadlines of the settings."""

    pipeline: Pipeline
    metrics: GatewayMetrics
    request_timeout_s: float
    keepalive_s: float

    def start(self, request: ChatRequest) -> Turn:
        """Starts a turn; its events wait until they are read."""
        return Turn(self, request)


class Turn:
    """One running turn. Leaving its context cancels whatever of it still runs, down to the engine."""

    def __init__(self, turns: Turns, request: ChatRequest) -> None:
        self._turns = turns
        self._events: asyncio.Queue[Event | AgentFluxError | None] = asyncio.Queue(maxsize=64)
        self._peeked: list[Event | AgentFluxError | None] = []
        self._task = asyncio.create_task(self._run(request))

    async def peek(self) -> Event | None:
        """The first event without taking it; None when it takes longer than clients bear silence.

        Raises:
            AgentFluxError: the turn failed before its first event.
        """
        with contextlib.suppress(TimeoutError):
            self._peeked.append(await self._next())
            first = self._peeked[0]
            if isinstance(first, AgentFluxError):
                raise first
            return first
        return None

    async def events(self) -> AsyncIterator[Event]:
        """The events as they happen."""
        async for event in self.events_or_silence():
            if event is not None:
                yield event

    async def events_or_silence(self) -> AsyncIterator[Event | None]:
        """The events as they happen, and None for every silence of `keepalive_s`."""
        while True:
            try:
                item = self._peeked.pop() if self._peeked else await self._next()
            except TimeoutError:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, AgentFluxError):
                raise item
            yield item

    async def _next(self) -> Event | AgentFluxError | None:
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that arrives together with a result.
        async with asyncio.timeout(self._turns.keepalive_s):
            return await self._events.get()

    async def aclose(self) -> None:
        """Cancels what still runs, and waits until it is gone."""
        self._task.cancel()
        # A cancelled scope repeats its cancellation at every await, and awaiting the task would hand that on to it in the
        # middle of closing its connections.
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Turn:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _run(self, request: ChatRequest) -> None:
        started, outcome = time.perf_counter(), "error"
        end: AgentFluxError | None = None
        try:
            # Closed here and not when it is collected: a client that left may have left us waiting for room in the queue.
            async with asyncio.timeout(self._turns.request_timeout_s), aclosing(self._turns.pipeline.run(request)) as events:
                async for event in events:
                    if outcome == "error":
                        self._turns.metrics.first_event.observe(time.perf_counter() - started)
                    outcome = self._turns.metrics.observe(event) or ("open" if outcome == "error" else outcome)
                    await self._events.put(event)
        except TimeoutError:
            end = DeadlineExceeded(
                f"the request took longer than {self._turns.request_timeout_s:g} s (setting request_timeout_s)"
            )
        except AgentFluxError as error:
            end = error
        except Exception:
            log.exception("turn failed")
            end = AgentFluxError("internal error; the logs have it under this request's id")
        self._turns.metrics.turns.labels("error" if end else outcome).inc()
        await self._events.put(end)
