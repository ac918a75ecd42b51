"""Which turns run now, which wait, and which are refused at once because they would wait in vain.

A fixed number of turns run at a time. Of those that wait, a running tool loop comes before a new conversation (its agent has
spent work already), then the caller with the fewest running turns, then whoever has waited longest. A new conversation that has
waited for `AGED_S` counts as a running one, so that it is served too while loops keep coming.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from services.shared.contracts.errors import Overloaded

AGED_S = 5.0

# The weight of the latest turn in the mean duration of a turn: it follows a change of load within some tens of turns.
LATEST = 0.05

Reason = Literal["full", "too_late", "waited_too_long"]


class Refused(Overloaded):
    """A turn that got no place; `reason` is a word for metrics."""

    def __init__(self, message: str, *, reason: Reason, retry_after: float) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class _Waiter:
    caller: str
    continues: bool
    since: float
    place: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def rank(self, now: float) -> int:
        """0 comes before 1."""
        return 0 if self.continues or now - self.since > AGED_S else 1


class Admission:
    """At most `max_turns` run, and at most `max_queue` wait, `queue_timeout_s` seconds at most."""

    def __init__(
        self,
        *,
        max_turns: int = 512,
        max_queue: int = 512,
        queue_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_turns = max_turns
        self._max_queue = max_queue
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._running: Counter[str] = Counter()
        # By whether they continue a loop, and by caller: each queue is in the order of arrival.
        self._queues: dict[tuple[bool, str], deque[_Waiter]] = {}
        self._turn_s = 0.0

    @property
    def running(self) -> int:
        """Turns that have a place."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Turns that wait for one."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def place(self, caller: str, *, continues: bool, time_left_s: float) -> AsyncIterator[None]:
        """A place among the running turns for as long as the context lasts. `continues`: the turn belongs to a running tool loop.

        Cancelling leaves the queue at once.

        Raises:
            Refused: the queue is full, or the turn could not be over within `time_left_s`.
        """
        if self.running >= self._max_turns:
            await self._wait(_Waiter(caller, continues, self._clock()), time_left_s)
        else:
            self._running[caller] += 1
        began = self._clock()
        try:
            yield
        finally:
            took = self._clock() - began
            self._turn_s = took if not self._turn_s else (1 - LATEST) * self._turn_s + LATEST * took
            self._leave(caller)

    async def _wait(self, waiter: _Waiter, time_left_s: float) -> None:
        patience_s = min(self._queue_timeout_s, time_left_s - self._turn_s)
        if (expected_s := self._wait_of(waiter)) > patience_s:
            raise Refused(
                f"{self.waiting} turns wait already; this one would begin in about {expected_s:.0f} s, which is too late",
                reason="too_late",
                retry_after=max(1.0, expected_s - patience_s),
            )
        if self.waiting >= self._max_queue:
            self._refuse_one(waiter)
        self._queues.setdefault((waiter.continues, waiter.caller), deque()).append(waiter)
        try:
            async with asyncio.timeout(patience_s):
                await waiter.place
        except BaseException as error:
            if not self._forget(waiter) and waiter.place.done() and not waiter.place.cancelled() and not waiter.place.exception():
                # The place came at the same moment as the end.
                self._leave(waiter.caller)
            if isinstance(error, TimeoutError):
                raise Refused(
                    f"no turn ended within {patience_s:.0f} s of waiting", reason="waited_too_long", retry_after=self._drained_s()
                ) from None
            raise

    def _wait_of(self, newcomer: _Waiter) -> float:
        """Seconds until the newcomer would begin, judged by how long turns take: at least, for others may come before it."""
        before = self.waiting
        if newcomer.continues:
            before = sum(len(queue) for (continues, _), queue in self._queues.items() if continues)
        return (before + 1) * self._turn_s / self._max_turns

    def _drained_s(self) -> float:
        return max(1.0, math.ceil(self.waiting * self._turn_s / self._max_turns))

    def _refuse_one(self, newcomer: _Waiter) -> None:
        """Makes room: the least urgent turn of the caller with most of them waiting goes, or else the newcomer."""
        now = self._clock()
        of_caller = Counter({newcomer.caller: 1})
        for queue in self._queues.values():
            of_caller[queue[0].caller] += len(queue)
        last = [newcomer, *(queue[-1] for queue in self._queues.values())]
        victim = max(last, key=lambda each: (each.rank(now), of_caller[each.caller], each.since, each is newcomer))
        refusal = Refused(
            f"{self._max_queue} turns wait already (setting max_queue)", reason="full", retry_after=self._drained_s()
        )
        if victim is newcomer:
            raise refusal
        self._forget(victim)
        # One that was cancelled stands in its queue until it wakes.
        if not victim.place.done():
            victim.place.set_exception(refusal)

    def _forget(self, waiter: _Waiter) -> bool:
        """Takes a waiter out of its queue; returns whether it was there."""
        key = waiter.continues, waiter.caller
        queue = self._queues.get(key, deque())
        if waiter not in queue:
            return False
        queue.remove(waiter)
        if not queue:
            del self._queues[key]
        return True

    def _leave(self, caller: str) -> None:
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        for waiter in self._next():
            self._forget(waiter)
            if not waiter.place.done():
                self._running[waiter.caller] += 1
                waiter.place.set_result(None)

    def _next(self) -> Iterator[_Waiter]:
        """Who gets the places that are free."""
        while self._queues and self.running < self._max_turns:
            now = self._clock()
            first = [queue[0] for queue in self._queues.values()]
            yield min(first, key=lambda each: (each.rank(now), self._running[each.caller], each.since))
