"""How much a caller may ask per minute and per day: counted in windows that slide, shared by all gateways through one store.

A request is counted before its body is read, with an estimate of its tokens; what the finished turn used beyond that is added
then. Where the store does not answer in time, nobody is held up by it: requests pass uncounted, and a metric says so.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog
from limits.aio.storage import Storage
from limits.errors import StorageError

from services.gateway.events import AnswerChunk, Answered, CallWritten, Event, Selected, Withheld
from services.gateway.keys import Caller
from services.shared.contracts.errors import BudgetSpent, RateLimited
from services.shared.contracts.usage import Usage

log = structlog.get_logger()

MINUTE_S, DAY_S = 60, 86_400

# A store that did not answer is left alone for so long: a deadline for each request would add up.
REST_S = 1.0

# What a prompt of English or JSON has per token, roughly. The estimate is corrected by what the turn used.
BYTES_PER_TOKEN = 4

Kind = Literal["requests", "tokens", "budget"]

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Window:
    """One limit of a caller: at most `limit` in any `period_s` seconds. A request adds `cost` at its beginning."""

    kind: Kind
    limit: int
    period_s: int
    cost: int


@dataclass(frozen=True)
class Count:
    """A window after a request was added to it: what it held, the one before it, and the seconds since it began.

    As usual for sliding windows that need two counters only, the previous period is taken for evenly used.
    """

    window: Window
    previous: int
    current: int
    elapsed_s: float

    @property
    def used(self) -> float:
        """What counts now, this request included. A budget begins anew each day (UTC); rates slide."""
        if self.window.kind == "budget":
            return self.current
        return self.current + self.previous * (1 - self.elapsed_s / self.window.period_s)

    @property
    def remaining(self) -> int:
        """What is left."""
        return max(0, math.floor(self.window.limit - self.used))

    @property
    def reset_s(self) -> float:
        """Seconds until nothing of it counts any more."""
        return (1 if self.window.kind == "budget" else 2) * self.window.period_s - self.elapsed_s

    @property
    def wait_s(self) -> float:
        """Seconds until the request fits if no other one comes."""
        limit, cost, period_s = self.window.limit, self.window.cost, self.window.period_s
        room = limit - self.current
        if room >= 0:
            return max(0.0, period_s * (1 - room / self.previous) - self.elapsed_s)
        others = self.current - cost
        return period_s - self.elapsed_s + max(0.0, period_s * (1 - (limit - cost) / others))


def windows_of(caller: Caller, tokens: int) -> list[Window]:
    """The limits of a caller for a request of about `tokens`. One larger than a whole limit passes alone and uses all of it."""
    limits: list[tuple[Kind, int | None, int, int]] = [
        ("requests", caller.requests_per_minute, MINUTE_S, 1),
        ("tokens", caller.tokens_per_minute, MINUTE_S, tokens),
        ("budget", caller.tokens_per_day, DAY_S, tokens),
    ]
    return [Window(kind, limit, period_s, min(cost, limit)) for kind, limit, period_s, cost in limits if limit is not None]


async def own_time() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()


class Limits:
    """Counts in `store`, which gets `timeout_s` seconds for all that a request asks of it.

    `clock` gives seconds since 1970; gateways that share a store need one clock, or each counts in a window of its own.
    """

    def __init__(
        self,
        store: Storage,
        *,
        timeout_s: float,
        failed: Callable[[], None] = lambda: None,
        clock: Callable[[], Awaitable[float]] = own_time,
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._failed = failed
        self._clock = clock
        self._rests_until = 0.0
        # What the previous period of a window had, which changes no more: by caller and kind, with the number of the period.
        self._previous: dict[tuple[str, Kind], tuple[int, int]] = {}
        self._charges: set[asyncio.Task[None]] = set()

    async def admit(self, caller: Caller, tokens: int) -> dict[str, str]:
        """Counts one request of about `tokens`, and returns OpenAI's headers about it; none for a caller without limits.

        Raises:
            RateLimited: with the seconds until it would pass.
            BudgetSpent: there is nothing left today.
        """
        windows = windows_of(caller, tokens)
        counted = await self._within_time(self._count(caller, windows)) if windows else None
        if counted is None:
            return {}
        now, counts = counted
        spent = [count for count in counts if count.used > count.window.limit]
        if spent:
            # Refused requests do not count, or a client that insists would never be served again.
            given_back = [Window(each.kind, each.limit, each.period_s, -each.cost) for each in windows]
            await self._within_time(self._add(caller, given_back, now))
            raise _refusal(caller, max(spent, key=lambda count: count.wait_s))
        return headers_of(counts)

    def charge(self, caller: Caller, tokens: int, *, estimated: int) -> None:
        """Adds what a turn used beyond its estimate. Returns at once: nobody waits for it."""
        owed = [
            Window(each.kind, each.limit, each.period_s, tokens - each.cost)
            for each in windows_of(caller, estimated)
            if each.kind != "requests" and tokens > each.cost
        ]
        if owed:
            task = asyncio.create_task(self._charge(caller, owed))
            self._charges.add(task)
            task.add_done_callback(self._charges.discard)

    async def aclose(self) -> None:
        """Waits for the last charges, which are short."""
        await asyncio.gather(*self._charges)

    async def _charge(self, caller: Caller, owed: Sequence[Window]) -> None:
        await self._within_time(self._count(caller, owed))

    async def _within_time(self, counting: Coroutine[Any, Any, _Found]) -> _Found | None:
        """What `counting` gives, or None where the store is away."""
        if time.monotonic() < self._rests_until:
            counting.close()
            self._failed()
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await counting
        except (StorageError, OSError) as error:  # TimeoutError is an OSError
            self._rests_until = time.monotonic() + REST_S
            self._failed()
            reason = str(error) or f"no answer within {self._timeout_s * 1000:g} ms (setting limits_timeout_s)"
            log.warning("requests pass uncounted: the store of the rate limits cannot be used", error=reason)
            return None

    async def _count(self, caller: Caller, windows: Sequence[Window]) -> tuple[float, list[Count]]:
        now = await self._clock()
        return now, await self._add(caller, windows, now)

    async def _add(self, caller: Caller, windows: Sequence[Window], now: float) -> list[Count]:
        return await asyncio.gather(*(self._add_to(caller.name, window, now) for window in windows))

    async def _add_to(self, name: str, window: Window, now: float) -> Count:
        number, elapsed_s = divmod(now, window.period_s)
        period = int(number)
        current = await self._store.incr(_counter(name, window, period), 2 * window.period_s, amount=window.cost)
        known = self._previous.get((name, window.kind))
        if known is None or known[0] != period:
            known = period, await self._store.get(_counter(name, window, period - 1))
            self._previous[name, window.kind] = known
        return Count(window, known[1], current, elapsed_s)


class Meter:
    """What a turn has used so far."""

    def __init__(self) -> None:
        self._decided = Usage()
        # An engine may tell its usage with every chunk, counted from the start.
        self._answer = Usage()

    @property
    def usage(self) -> Usage:
        """Of both stages and the answer."""
        return self._decided + self._answer

    def note(self, event: Event) -> None:
        """Takes the next event of the turn."""
        match event:
            # The most frequent one first.
            case AnswerChunk(reply) | Answered(reply):
                if reply.get("usage"):
                    self._answer = Usage.of_reply(reply)
            case Selected(selection):
                self._decided += selection.usage
            case CallWritten(generated):
                self._decided += generated.usage
            case Withheld(usage):
                self._decided += usage


def headers_of(counts: Sequence[Count]) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` as OpenAI words them; a day's budget has none there."""
    headers: dict[str, str] = {}
    for count in counts:
        if (kind := count.window.kind) != "budget":
            headers[f"x-ratelimit-limit-{kind}"] = str(count.window.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(count.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = duration(count.reset_s)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI's headers write it: `120ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _counter(name: str, window: Window, period: int) -> str:
    return f"{name}/{window.kind}/{period}"


def _refusal(caller: Caller, count: Count) -> RateLimited | BudgetSpent:
    window = count.window
    used = max(0, math.ceil(count.used) - window.cost)
    if window.kind == "budget":
        return BudgetSpent(
            f"the API key {caller.name!r} used {used} of its {window.limit} tokens today; the next day begins at 00:00 UTC, "
            f"in {duration(count.reset_s)}"
        )
    return RateLimited(
        f"the API key {caller.name!r} may use {window.limit} {window.kind} per minute and used {used}; this request needs "
        f"{window.cost}. Try again in {duration(count.wait_s)}",
        retry_after=count.wait_s,
    )
