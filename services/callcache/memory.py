"""What the service answers: the standings of a conversation, with the store's help, or without while the store is down."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Protocol, TypeVar

import structlog

from services.callcache.metrics import CallCacheMetrics
from services.callcache.policy import Observation, observations, repeats, standings, surplus
from services.shared.contracts.calls import Ladder, LookBack, Standings
from services.shared.contracts.errors import Unavailable

log = structlog.get_logger()
Answer = TypeVar("Answer")


class CallStore(Protocol):
    """Whoever keeps observations between requests. Every method raises Unavailable when it cannot, and soon."""

    async def observe(self, conversation: str, seen: Collection[Observation]) -> set[Observation]:
        """Adds what was seen and returns everything seen in this conversation."""

    async def forget(self, conversation: str, seen: Collection[Observation]) -> None: ...

    async def clear(self, conversation: str) -> None: ...

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...


class Memory:
    """Implements the `CallMemory` Protocol over a store."""

    def __init__(self, store: CallStore, metrics: CallCacheMetrics, *, ladder: Ladder, max_calls: int) -> None:
        self._store = store
        self._metrics = metrics
        self._ladder = ladder
        self._max_calls = max_calls
        self._store_is_up = True

    async def look_back(self, request: LookBack) -> Standings:
        """Remembers the request's calls and says which of them stand on the ladder; never fails because of the store."""
        if not request.calls:
            return Standings()
        shown = observations(request.calls)
        try:
            remembered, shared = await self._remember(request.conversation, shown), True
        except Unavailable:
            remembered, shared = set(), False
        counts = repeats(shown, remembered)
        tools = {seen.call_key: call.tool for seen, call in zip(shown, request.calls, strict=True)}
        found = standings(counts, tools, self._ladder)
        self._metrics.looked_back(counts.values(), found)
        return Standings(standings=found, shared=shared)

    async def _remember(self, conversation: str, shown: list[Observation]) -> set[Observation]:
        remembered = await self._watched(self._store.observe(conversation, shown[-self._max_calls :]))
        if len(remembered) > self._max_calls:
            await self._watched(self._store.forget(conversation, surplus(shown, remembered, self._max_calls)))
        return remembered

    async def clear(self, conversation: str) -> None:
        """Forgets a conversation; raises Unavailable when the store could not be told."""
        await self._watched(self._store.clear(conversation))

    async def ready(self) -> str | None:
        """None when the store answers, else why it does not and what that means."""
        try:
            await self._watched(self._store.ping())
        except Unavailable as error:
            return f"{error.message}; until then repeated calls are counted from each request alone"
        return None

    async def _watched(self, asked: Awaitable[Answer]) -> Answer:
        """The store's answer, with a log line when it falls or recovers; one per request would drown the others."""
        try:
            answer = await asked
        except Unavailable as error:
            self._metrics.store_failed()
            if self._store_is_up:
                log.warning("store is down", error=error.message)
            self._store_is_up = False
            raise
        self._metrics.store_answered()
        if not self._store_is_up:
            log.info("store is up again")
        self._store_is_up = True
        return answer
