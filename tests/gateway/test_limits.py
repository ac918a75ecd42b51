"""What a caller may ask per minute and per day, alone and together with other gateways, and when the store is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from limits.aio.storage import MemoryStorage

from services.gateway.keys import Caller
from services.gateway.limits import Count, Limits, Meter, Window, duration
from services.gateway.records.store import RedisCounters
from services.shared.contracts.errors import BudgetSpent, RateLimited
from tests.valkey import Valkey, start_valkey

pytestmark = pytest.mark.anyio
# Whole minutes and days since 1970 begin here.
MIDNIGHT = 20_000 * 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = MIDNIGHT

    async def __call__(self) -> float:
        return self.now


class Counting:
    """Limits in memory, at a time that the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.failures = 0
        self.limits = Limits(MemoryStorage(), timeout_s=1, clock=self.clock)

    async def admitted(self, caller: Caller, times: int, tokens: int = 1) -> int:
        """How many of so many requests pass."""
        passed = 0
        for _ in range(times):
            try:
                await self.limits.admit(caller, tokens)
                passed += 1
            except (RateLimited, BudgetSpent):
                pass
        return passed


async def test_a_caller_without_limits_is_never_counted():
    counting = Counting()
    assert await counting.limits.admit(Caller(name="a"), 10**9) == {}


async def test_requests_per_minute():
    counting, caller = Counting(), Caller(name="a", requests_per_minute=5)
    assert await counting.admitted(caller, 8) == 5
    assert await counting.admitted(Caller(name="b", requests_per_minute=5), 8) == 5
    counting.clock.now += 120
    assert await counting.admitted(caller, 8) == 5


async def test_the_window_slides_so_that_no_minute_has_twice_the_rate():
    counting, caller = Counting(), Caller(name="a", requests_per_minute=60)
    counting.clock.now += 59
    assert await counting.admitted(caller, 100) == 60
    counting.clock.now += 2
    assert await counting.admitted(caller, 100) == 1
    counting.clock.now += 29
    assert await counting.admitted(caller, 100) == 29


async def test_the_refusal_says_when_the_request_would_pass_and_it_does_then():
    for late in (0.0, 7.25, 59.0):
        counting, caller = Counting(), Caller(name="a", requests_per_minute=10)
        counting.clock.now += late
        await counting.admitted(caller, 10)
        for _ in range(3):
            with pytest.raises(RateLimited) as raised:
                await counting.limits.admit(caller, 1)
            assert raised.value.retry_after is not None
            assert 0 < raised.value.retry_after <= 120
            counting.clock.now += raised.value.retry_after - 0.1
            assert await counting.admitted(caller, 1) == 0
            counting.clock.now += 0.2
            assert await counting.admitted(caller, 1) == 1


async def test_refused_requests_do_not_count():
    counting, caller = Counting(), Caller(name="a", requests_per_minute=5, tokens_per_minute=1000)
    await counting.admitted(caller, 500, tokens=10)
    counting.clock.now += 90
    headers = await counting.limits.admit(caller, 10)
    assert headers["x-ratelimit-remaining-requests"] == "1"  # of five, half of five still count, and this one
    assert headers["x-ratelimit-remaining-tokens"] == "965"


async def test_tokens_are_counted_by_estimate_and_then_by_what_the_turn_used():
    counting, caller = Counting(), Caller(name="a", tokens_per_minute=1000)
    await counting.limits.admit(caller, 100)
    counting.limits.charge(caller, 640, estimated=100)
    await counting.limits.aclose()
    headers = await counting.limits.admit(caller, 10)
    assert headers == {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "350",
        "x-ratelimit-reset-tokens": "2m0s",
    }
    with pytest.raises(RateLimited, match="1000 tokens per minute and used 650; this request needs 400"):
        await counting.limits.admit(caller, 400)


async def test_a_request_larger_than_the_whole_limit_passes_alone():
    counting, caller = Counting(), Caller(name="a", tokens_per_minute=1000)
    assert await counting.admitted(caller, 2, tokens=5000) == 1


async def test_a_days_budget_ends_without_a_hint_to_retry_and_begins_anew_at_midnight():
    counting, caller = Counting(), Caller(name="a", tokens_per_day=1000)
    counting.clock.now += 86_400 - 60
    await counting.limits.admit(caller, 900)
    with pytest.raises(BudgetSpent, match=r"used 900 of its 1000 tokens today.* in 1m0s") as raised:
        await counting.limits.admit(caller, 200)
    assert raised.value.retry_after is None
    counting.clock.now += 60
    assert await counting.admitted(caller, 1, tokens=900) == 1


def test_counts_say_what_is_left():
    count = Count(Window("requests", 100, 60, 1), previous=40, current=30, elapsed_s=15)
    assert count.used == 60
    assert count.remaining == 40
    assert count.reset_s == 105


@pytest.mark.parametrize(("seconds", "text"), [(0.0201, "21ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (86_399.5, "1440m0s")])
def test_durations_read_as_openais(seconds, text):
    assert duration(seconds) == text


def test_an_answers_usage_is_its_last_word():
    from services.gateway.events import AnswerChunk

    meter = Meter()
    for tokens in (1, 2, 3):
        meter.note(AnswerChunk({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": tokens}}))
    assert meter.usage.prompt_tokens + meter.usage.completion_tokens == 13


# --- On a real Valkey ---


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with start_valkey(password="s3cret") as server:
        yield server


@asynccontextmanager
async def shared(valkey: Valkey, *, timeout_s: float = 30, failures: list[None] | None = None) -> AsyncIterator[Limits]:
    """The limits of one gateway that counts in Valkey."""
    counters = RedisCounters(valkey.url, timeout_s=timeout_s)
    noted = [] if failures is None else failures
    limits = Limits(counters, timeout_s=timeout_s, failed=lambda: noted.append(None), clock=Clock())
    yield limits
    await limits.aclose()
    await counters.aclose()


async def passes(limits: Limits, caller: Caller) -> bool:
    try:
        await limits.admit(caller, 1)
    except RateLimited:
        return False
    return True


@pytest.mark.real
async def test_two_gateways_share_one_limit_to_the_last_request(valkey):
    caller = Caller(name="shared", requests_per_minute=100, tokens_per_minute=10_000, tokens_per_day=10_000)
    failures: list[None] = []
    async with shared(valkey, failures=failures) as one, shared(valkey, failures=failures) as other:
        outcomes = await asyncio.gather(*(passes((one, other)[number % 2], caller) for number in range(300)))
    # A request that is refused is counted for a moment, and may keep one out that comes in this moment.
    assert 90 <= sum(outcomes) <= 100
    assert not failures


@pytest.mark.real
async def test_charges_reach_the_other_gateway(valkey):
    caller = Caller(name="charged", tokens_per_minute=1000)
    async with shared(valkey) as one, shared(valkey) as other:
        await one.admit(caller, 100)
        one.charge(caller, 700, estimated=100)
        await one.aclose()
        assert (await other.admit(caller, 50))["x-ratelimit-remaining-tokens"] == "250"


@pytest.mark.real
async def test_counters_are_forgotten_in_time(valkey):
    from redis.asyncio import Redis

    async with shared(valkey) as limits:
        await limits.admit(Caller(name="forgotten", requests_per_minute=5, tokens_per_day=5), 1)
    redis = Redis.from_url(valkey.url)
    lifetimes = {key.decode().split("/")[1]: await redis.ttl(key) async for key in redis.scan_iter("*forgotten/*")}
    await redis.aclose()
    assert 0 < lifetimes["requests"] <= 120
    assert 0 < lifetimes["budget"] <= 2 * 86_400


@pytest.mark.real
async def test_a_valkey_that_hangs_or_is_gone_holds_nobody_up_and_limits_count_again_afterwards():
    caller = Caller(name="a", requests_per_minute=3)
    failures: list[None] = []
    with start_valkey() as server:
        async with shared(server, timeout_s=0.3, failures=failures) as limits:
            await limits.admit(caller, 1)
            assert not failures
            server.freeze()
            began = time.monotonic()
            assert all([await passes(limits, caller) for _ in range(50)])
            # One request waits for its deadline, the others find the store resting.
            assert time.monotonic() - began < 5
            assert len(failures) == 50
            server.thaw()
            server.stop()
            await asyncio.sleep(1.1)
            assert all([await passes(limits, caller) for _ in range(50)])
            assert len(failures) == 100
            server.start()
            await asyncio.sleep(1.1)
            assert [await passes(limits, caller) for _ in range(4)] == [True, True, True, False]
