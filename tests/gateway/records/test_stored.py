"""Stored responses: chains, tenants, limits, and the store of a deployment without Redis."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.metrics import GatewayMetrics
from services.gateway.records.stored import (
    ENTRY_BYTES,
    MAX_CHAIN,
    Blobs,
    History,
    MemoryBlobs,
    PreviousResponseNotFound,
    Record,
    StoredResponses,
    item_id,
)
from services.shared.contracts.errors import InvalidRequest, NotFound, Unavailable

pytestmark = pytest.mark.anyio


class BrokenBlobs(MemoryBlobs):
    """A store that is down."""

    async def load(self, keys: Any) -> list[bytes | None]:
        raise Unavailable("the store is down")

    async def save(self, key: str, value: bytes) -> None:
        raise Unavailable("the store is down")


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def new_response_id() -> str:
    return f"resp_{uuid.uuid4().hex}"


def responses(
    blobs: Blobs | None = None, *, max_record_bytes: int = 10_000, max_history_bytes: int = 100_000
) -> tuple[StoredResponses, CollectorRegistry]:
    registry = CollectorRegistry()
    stored = StoredResponses(
        blobs or MemoryBlobs(ttl_s=60),
        GatewayMetrics(registry),
        max_record_bytes=max_record_bytes,
        max_history_bytes=max_history_bytes,
    )
    return stored, registry


def said(response_id: str, number: int, text: str) -> dict[str, Any]:
    return {"id": item_id(response_id, number, "message"), "type": "message", "content": text}


def record(history: History, *, text: str = "hi", response_id: str | None = None) -> Record:
    response_id = response_id or new_response_id()
    response = {"id": response_id, "output": [said(response_id, 1, f"{text}!")]}
    return Record(response, [said(response_id, 0, text)], history.chain, history.bytes)


async def conversation(stored: StoredResponses, turns: int, *, caller: str = "") -> list[str]:
    """The ids of the responses of a conversation, whose turns say their number."""
    history, ids = History(), []
    for turn in range(turns):
        one = record(history, text=str(turn))
        assert await stored.keep(caller, one)
        ids.append(one.response["id"])
        history = await stored.history(caller, ids[-1])
    return ids


async def test_a_chain_is_the_whole_conversation_in_order() -> None:
    stored, _ = responses()
    ids = await conversation(stored, 4)
    history = await stored.history("", ids[-1])
    assert [item["content"] for item in history.items] == ["0", "0!", "1", "1!", "2", "2!", "3", "3!"]
    assert history.chain == ids


async def test_a_conversation_can_branch_at_every_response() -> None:
    stored, _ = responses()
    ids = await conversation(stored, 3)
    branch = record(await stored.history("", ids[0]), text="other")
    await stored.keep("", branch)
    items = (await stored.history("", branch.response["id"])).items
    assert [item["content"] for item in items] == ["0", "0!", "other", "other!"]


async def test_a_history_is_read_in_two_questions_however_long_it_is() -> None:
    class Counting(MemoryBlobs):
        asked = 0

        async def load(self, keys: Any) -> list[bytes | None]:
            self.asked += 1
            return await super().load(keys)

    blobs = Counting(ttl_s=60)
    stored, _ = responses(blobs)
    ids = await conversation(stored, 20)
    blobs.asked = 0
    await stored.history("", ids[-1])
    assert blobs.asked == 2


async def test_what_was_never_stored_or_is_deleted_is_not_found() -> None:
    stored, _ = responses()
    ids = await conversation(stored, 3)
    await stored.delete("", ids[1])
    for missing in (ids[1], new_response_id(), "resp_1", "", "resp_" + "A" * 32, "../" * 10):
        with pytest.raises(NotFound):
            await stored.get("", missing)
        with pytest.raises(NotFound):
            await stored.delete("", missing)
        with pytest.raises(PreviousResponseNotFound) as refused:
            await stored.history("", missing)
        assert (refused.value.status, refused.value.code) == (404, "previous_response_not_found")
        assert refused.value.param == "previous_response_id"
    with pytest.raises(PreviousResponseNotFound) as refused:
        await stored.history("", ids[2])
    assert ids[1] in refused.value.message


async def test_responses_belong_to_their_caller() -> None:
    stored, _ = responses()
    [mine] = await conversation(stored, 1, caller="alice")
    for other in ("bob", ""):
        with pytest.raises(NotFound):
            await stored.get(other, mine)
        with pytest.raises(NotFound):
            await stored.delete(other, mine)
        with pytest.raises(PreviousResponseNotFound):
            await stored.history(other, mine)
        assert await stored.items(other, [item_id(mine, 0, "message")]) == {}
    assert (await stored.get("alice", mine)).response["id"] == mine


async def test_items_are_found_by_their_ids_alone() -> None:
    stored, _ = responses()
    ids = await conversation(stored, 2)
    wanted = [item_id(ids[0], 1, "message"), item_id(ids[1], 0, "message")]
    found = await stored.items("", [*wanted, "fc_somebody_elses", item_id(new_response_id(), 0, "function_call")])
    assert [found[each]["content"] for each in wanted] == ["0!", "1"]


async def test_references_are_bounded_by_what_is_read_and_by_what_they_stand_for() -> None:
    class Reading(MemoryBlobs):
        read = 0

        async def load(self, keys: Any) -> list[bytes | None]:
            self.read += len(keys)
            return await super().load(keys)

    blobs = Reading(ttl_s=60)
    stored, _ = responses(blobs, max_record_bytes=1_000, max_history_bytes=5_000)
    made = [record(History(), text="x" * 300) for _ in range(20)]
    for each in made:
        assert await stored.keep("", each)
    wanted = [item_id(each.response["id"], 0, "message") for each in made]
    assert len(await stored.items("", wanted[:4])) == 4
    assert len(await stored.items("", wanted[:1] * 8)) == 1
    blobs.read = 0
    for too_much in (wanted, wanted[:1] * 20):
        with pytest.raises(InvalidRequest, match="at most 5000") as refused:
            await stored.items("", too_much)
        assert refused.value.param == "input"
    assert blobs.read < len(wanted), "what is refused was read to its end"


async def test_a_response_that_is_too_large_is_not_stored_and_counted() -> None:
    stored, registry = responses(max_record_bytes=500)
    assert await stored.keep("", record(History()))
    assert not await stored.keep("", record(History(), text="x" * 500))
    outcomes = {
        outcome: registry.get_sample_value("agentflux_stored_responses_total", {"outcome": outcome})
        for outcome in ("stored", "too_large")
    }
    assert outcomes == {"stored": 1, "too_large": 1}


async def test_a_store_that_is_down_costs_the_storing_and_not_the_reply() -> None:
    stored, registry = responses(BrokenBlobs(ttl_s=60))
    assert not await stored.keep("", record(History()))
    assert registry.get_sample_value("agentflux_stored_responses_total", {"outcome": "unavailable"}) == 1
    with pytest.raises(Unavailable):
        await stored.history("", new_response_id())


async def test_a_history_too_long_is_refused_before_it_is_read() -> None:
    stored, _ = responses(max_history_bytes=2_000)
    with pytest.raises(InvalidRequest) as refused:
        await conversation(stored, 20)
    assert refused.value.param == "previous_response_id"
    stored, _ = responses(max_record_bytes=100_000)
    endless = record(History(chain=[new_response_id()] * MAX_CHAIN))
    await stored.keep("", endless)
    with pytest.raises(InvalidRequest):
        await stored.history("", endless.response["id"])


async def test_half_an_emoji_survives() -> None:
    stored, _ = responses()
    one = record(History(), text="\ud83d")
    await stored.keep("", one)
    assert (await stored.get("", one.response["id"])).input[0]["content"] == "\ud83d"


async def test_memory_forgets_what_was_not_used_for_its_time() -> None:
    clock = Clock()
    blobs = MemoryBlobs(ttl_s=10, clock=clock)
    await blobs.save("a", b"1")
    await blobs.save("b", b"2")
    clock.now = 8
    assert await blobs.load(["a"]) == [b"1"]
    clock.now = 12
    assert await blobs.load(["a", "b"]) == [b"1", None]
    clock.now = 22
    assert await blobs.load(["a"]) == [None]
    assert not await blobs.delete("a")


async def test_memory_keeps_to_its_bytes_and_drops_the_least_recently_used() -> None:
    blobs = MemoryBlobs(ttl_s=10, max_bytes=25 + 2 * ENTRY_BYTES)
    for key in ("a", "b"):
        await blobs.save(key, b"0123456789")
    await blobs.load(["a"])
    await blobs.save("c", b"0123456789")
    assert await blobs.load(["a", "b", "c"]) == [b"0123456789", None, b"0123456789"]
    await blobs.save("a", b"01234567890123")
    assert await blobs.load(["a", "c"]) == [b"01234567890123", b"0123456789"]
