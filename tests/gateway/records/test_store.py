"""Stored responses on a real Valkey, which is killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import openai
import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from services.gateway.records.store import RedisBlobs
from services.gateway.records.stored import History
from services.gateway.settings import GatewaySettings
from services.shared.contracts.errors import Unavailable
from tests.gateway.records.test_stored import conversation, record, responses
from tests.gateway.test_responses_api import gateway
from tests.valkey import Valkey, start_valkey

pytestmark = [pytest.mark.anyio, pytest.mark.real]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with start_valkey() as server:
        yield server


@asynccontextmanager
async def blobs_on(valkey: Valkey, *, timeout_s: float = 1.0, ttl_s: int = 60) -> AsyncIterator[RedisBlobs]:
    blobs = RedisBlobs(valkey.url, timeout_s=timeout_s, ttl_s=ttl_s)
    yield blobs
    await blobs.aclose()


async def test_every_replica_can_go_on_with_a_conversation(valkey: Valkey) -> None:
    async with blobs_on(valkey) as one, blobs_on(valkey) as other:
        ids = await conversation(responses(one)[0], 3, caller="alice")
        history = await responses(other)[0].history("alice", ids[-1])
        assert [item["content"] for item in history.items] == ["0", "0!", "1", "1!", "2", "2!"]


async def test_no_name_and_no_id_stands_in_a_key(valkey: Valkey) -> None:
    async with blobs_on(valkey) as blobs, Redis.from_url(valkey.url) as redis:
        [response_id] = await conversation(responses(blobs)[0], 1, caller="alice")
        [key] = await redis.keys()
        assert b"alice" not in key
        assert response_id.encode() not in key


async def test_every_use_of_a_conversation_puts_off_the_expiry_of_all_of_it(valkey: Valkey) -> None:
    async with blobs_on(valkey, ttl_s=60) as blobs, Redis.from_url(valkey.url) as redis:
        stored, _ = responses(blobs)
        ids = await conversation(stored, 3)
        keys = await redis.keys()
        for key in keys:
            assert 55 < await redis.ttl(key) <= 60
            await redis.expire(key, 5)
        await stored.history("", ids[-1])
        assert [await redis.ttl(key) > 55 for key in keys] == [True] * 3


async def test_an_unused_response_is_forgotten(valkey: Valkey) -> None:
    async with blobs_on(valkey, ttl_s=1) as blobs:
        await blobs.save("key", b"value")
        await asyncio.sleep(1.2)
        assert await blobs.load(["key"]) == [None]


async def test_a_deleted_value_is_gone_at_once(valkey: Valkey) -> None:
    async with blobs_on(valkey) as blobs:
        await blobs.save("key", b"value")
        assert [await blobs.delete("key"), await blobs.delete("key")] == [True, False]
        assert await blobs.load(["key"]) == [None]


async def test_a_dead_valkey_is_said_to_be_dead_and_used_again_once_it_lives(valkey: Valkey) -> None:
    async with blobs_on(valkey) as blobs:
        stored, _ = responses(blobs)
        [response_id] = await conversation(stored, 1)
        assert await blobs.ready() is None
        valkey.stop()
        assert not await stored.keep("", record(History()))
        with pytest.raises(Unavailable) as refused:
            await stored.history("", response_id)
        assert refused.value.status == 503
        assert "AGENTFLUX_GATEWAY_REDIS_URL" in refused.value.message
        assert "not stored" in (await blobs.ready() or "")
        valkey.start()
        assert await stored.keep("", record(History()))


async def test_a_valkey_that_does_not_answer_costs_its_timeout_and_no_more(valkey: Valkey) -> None:
    async with blobs_on(valkey, timeout_s=0.2) as blobs:
        stored, _ = responses(blobs)
        [response_id] = await conversation(stored, 1)
        valkey.freeze()
        started = time.monotonic()
        kept = await asyncio.gather(*(stored.keep("", record(History())) for _ in range(100)))
        took = time.monotonic() - started
        assert not any(kept)
        # A hundred at once, on a machine that may be busy: not a hundred timeouts in a row, which would be 20 s.
        assert 0.15 < took < 10
        valkey.thaw()
        assert (await stored.get("", response_id)).response["id"] == response_id


async def test_a_valkey_that_is_full_stores_nothing_and_says_so(valkey: Valkey) -> None:
    async with blobs_on(valkey) as blobs, Redis.from_url(valkey.url) as redis:
        await redis.config_set("maxmemory", "1")
        stored, registry = responses(blobs)
        assert not await stored.keep("", record(History()))
        assert registry.get_sample_value("agentflux_stored_responses_total", {"outcome": "unavailable"}) == 1


async def test_a_gateway_serves_without_its_valkey_and_says_so(valkey: Valkey) -> None:
    async with blobs_on(valkey) as blobs, gateway(blobs=blobs) as running:
        first = await running.client.responses.create(model="base", input="hi")
        again = await running.client.responses.create(model="base", input="and?", previous_response_id=first.id)
        assert [message["role"] for message in running.engine.chats[-1]["messages"]] == ["user", "assistant", "user"]
        valkey.stop()
        assert (await running.client.responses.create(model="base", input="hi")).output_text == "It is done."
        with pytest.raises(openai.InternalServerError) as down:
            await running.client.responses.create(model="base", input="hi", previous_response_id=again.id)
        assert down.value.status_code == 503
        # It forgot everything when it died.
        valkey.start()
        with pytest.raises(openai.NotFoundError) as gone:
            await running.client.responses.create(model="base", input="hi", previous_response_id=again.id)
        assert gone.value.code == "previous_response_not_found"


async def test_a_password_stays_secret() -> None:
    with start_valkey(password="correct") as valkey:
        blobs = RedisBlobs(valkey.url.replace("correct", "hunter2"), timeout_s=1, ttl_s=60)
        reason = await blobs.ready() or ""
        await blobs.aclose()
        assert f"redis://127.0.0.1:{valkey.port}/0" in reason
        assert "hunter2" not in reason


def test_a_wrong_redis_url_is_refused_without_printing_it() -> None:
    with pytest.raises(ValidationError) as refused:
        GatewaySettings(redis_url="http://user:hunter2@127.0.0.1")
    assert "redis_url" in str(refused.value)
    assert "hunter2" not in str(refused.value)
