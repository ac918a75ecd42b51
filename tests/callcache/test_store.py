"""The store on a real Valkey, and the whole service while that Valkey is killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from services.callcache.app import create_app
from services.callcache.keys import conversation_key
from services.callcache.policy import observations
from services.callcache.settings import CallCacheSettings
from services.callcache.store import RedisStore
from services.shared.chassis.redis import without_credentials
from services.shared.clients.callcache import CallCacheClient
from services.shared.contracts.errors import Unavailable
from tests.callcache.calls import look_back, made, repeated
from tests.valkey import Valkey, start_valkey

pytestmark = [pytest.mark.anyio, pytest.mark.real]
SEEN = observations(repeated(3))


@contextlib.asynccontextmanager
async def store_on(valkey: Valkey, *, timeout_s: float = 1.0, ttl_s: int = 60) -> AsyncIterator[RedisStore]:
    store = RedisStore(valkey.url, timeout_s=timeout_s, ttl_s=ttl_s)
    yield store
    await store.aclose()


@contextlib.asynccontextmanager
async def service_on(url: str, **settings) -> AsyncIterator[tuple[CallCacheClient, httpx.AsyncClient]]:
    """The whole service: its client, and a plain one for /readyz and /metrics."""
    app = create_app(CallCacheSettings(redis_url=url, **settings))
    transport = httpx.ASGITransport(app=app)
    client = CallCacheClient("http://callcache", timeout_s=5, transport=transport)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://callcache") as http:
        yield client, http


async def readiness(http: httpx.AsyncClient) -> tuple[int, str, str]:
    reply = await http.get("/readyz")
    return reply.status_code, reply.json()["status"], reply.json()["checks"]["redis"]


async def test_what_was_observed_is_seen_by_every_replica(valkey):
    async with store_on(valkey) as one, store_on(valkey) as other:
        assert await one.observe("conversation", SEEN[:2]) == set(SEEN[:2])
        assert await other.observe("conversation", SEEN[1:]) == set(SEEN)
        assert await other.observe("elsewhere", SEEN[:1]) == set(SEEN[:1])


async def test_observations_can_be_forgotten_and_cleared(valkey):
    async with store_on(valkey) as store:
        await store.observe("conversation", SEEN)
        await store.forget("conversation", SEEN[:1])
        assert await store.observe("conversation", SEEN[1:2]) == set(SEEN[1:])
        await store.clear("conversation")
        assert await store.observe("conversation", SEEN[:1]) == set(SEEN[:1])


async def test_a_look_back_is_one_round_trip_and_puts_off_the_expiry(valkey):
    async with store_on(valkey, ttl_s=60) as store, Redis.from_url(valkey.url) as redis:
        await store.observe("conversation", SEEN)
        assert 55 < await redis.ttl(conversation_key("conversation")) <= 60
        await redis.expire(conversation_key("conversation"), 5)
        before = (await redis.info("stats"))["total_reads_processed"]
        await store.observe("conversation", SEEN)
        # One read for the look back, one for the question about it.
        assert (await redis.info("stats"))["total_reads_processed"] - before == 2
        assert await redis.ttl(conversation_key("conversation")) > 55


async def test_a_silent_conversation_is_forgotten(valkey):
    async with store_on(valkey, ttl_s=1) as store:
        await store.observe("conversation", SEEN)
        await asyncio.sleep(1.2)
        assert await store.observe("conversation", SEEN[:1]) == set(SEEN[:1])


async def test_many_look_backs_at_once_share_the_connections(valkey):
    async with store_on(valkey, timeout_s=5) as store, Redis.from_url(valkey.url) as redis:
        await asyncio.gather(*(store.observe(f"conversation {number % 10}", SEEN) for number in range(300)))
        assert (await redis.info("clients"))["connected_clients"] <= 65
        assert await redis.dbsize() == 10


async def test_a_cancelled_look_back_does_not_mix_up_the_next_one(valkey):
    async with store_on(valkey) as store:
        await store.ping()
        for pause in [0, 0.0001, 0.0003, 0.001] * 10:
            asked = asyncio.create_task(store.observe("cancelled", SEEN))
            await asyncio.sleep(pause)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            assert await store.observe("conversation", SEEN[:1]) == set(SEEN[:1])


async def test_requests_go_on_while_valkey_is_dead_and_it_is_used_again_once_it_lives(valkey):
    async with service_on(valkey.url) as (client, http):
        assert (await client.look_back(look_back(repeated(4)))).shared
        assert await readiness(http) == (200, "ready", "ok")

        valkey.stop()
        alone = await client.look_back(look_back(repeated(3)))
        assert (alone.shared, alone.standings[0].repeats) == (False, 3)
        with pytest.raises(Unavailable):
            await client.clear("conversation")
        status, state, reason = await readiness(http)
        assert (status, state) == (200, "degraded")
        assert f"redis://127.0.0.1:{valkey.port}/0" in reason
        assert "AGENTFLUX_CALLCACHE_REDIS_URL" in reason
        assert "agentflux_callcache_store_up 0.0" in (await http.get("/metrics")).text

        valkey.start()
        assert (await client.look_back(look_back(repeated(5)))).shared
        assert (await client.look_back(look_back([made("call_5")]))).standings[0].repeats == 6
        assert await readiness(http) == (200, "ready", "ok")
        assert "agentflux_callcache_store_up 1.0" in (await http.get("/metrics")).text


async def test_a_valkey_that_does_not_answer_costs_its_timeout_and_no_more(valkey):
    async with service_on(valkey.url, redis_timeout_s=0.2) as (client, http):
        await client.look_back(look_back(repeated(4)))
        valkey.freeze()
        started = time.monotonic()
        found = await asyncio.gather(*(client.look_back(look_back(repeated(3))) for _ in range(100)))
        took = time.monotonic() - started
        assert not any(standings.shared for standings in found)
        # A hundred at once, on a machine that may be busy: not a hundred timeouts in a row, which would be 20 s.
        assert 0.15 < took < 10
        assert "no answer within 0.2 s" in (await readiness(http))[2]

        valkey.thaw()
        assert (await client.look_back(look_back([made("call_4")]))).standings[0].repeats == 5


async def test_the_service_starts_before_its_valkey(valkey):
    valkey.stop()
    async with service_on(valkey.url) as (client, http):
        assert "agentflux_callcache_store_up 0.0" in (await http.get("/metrics")).text
        assert not (await client.look_back(look_back(repeated(1)))).shared
        valkey.start()
        assert (await client.look_back(look_back(repeated(1)))).shared


async def test_a_wrong_password_degrades_and_stays_secret():
    with start_valkey(password="correct") as valkey:
        async with service_on(valkey.url) as (client, _):
            assert (await client.look_back(look_back(repeated(1)))).shared
        async with service_on(valkey.url.replace("correct", "hunter2")) as (client, http):
            assert not (await client.look_back(look_back(repeated(1)))).shared
            status, state, reason = await readiness(http)
            assert (status, state) == (200, "degraded")
            assert "hunter2" not in reason
            assert f"redis://127.0.0.1:{valkey.port}/0" in reason


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:8079/0", "redis://127.0.0.1:8079/0"),
        ("rediss://user:p%40ss@redis.internal:6380/2?password=again", "rediss://redis.internal:6380/2"),
        ("unix://user:secret@/run/valkey.sock?db=1", "unix:///run/valkey.sock"),
    ],
)
def test_an_address_is_shown_without_its_credentials(url, shown):
    assert without_credentials(url) == shown


def test_a_wrong_redis_url_is_refused_without_printing_it():
    with pytest.raises(ValidationError) as refused:
        CallCacheSettings(redis_url="http://user:hunter2@127.0.0.1")
    assert "redis_url" in str(refused.value)
    assert "hunter2" not in str(refused.value)
