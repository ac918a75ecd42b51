"""Feedback over a real HTTP server: what it is about, what it counts, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.gateway.records.feedback import decisions_of
from services.gateway.records.record import TurnRecord
from services.gateway.records.store import RedisBlobs
from services.gateway.records.stored import Blobs
from services.shared.contracts.errors import Unavailable
from tests.fakes import FakeSelector, tool
from tests.gateway.watched import Watched, watched_gateway
from tests.valkey import Valkey, start_valkey

pytestmark = pytest.mark.anyio
ASK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
RIGHT = 'agentflux_feedback_total{correct="true",tool="read_file",toolset="files"}'
WRONG = RIGHT.replace("true", "false")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with start_valkey() as server:
        yield server


async def judged(gateway: Watched, turn: int = -1, status: int = 200, **fields: Any) -> dict[str, Any]:
    """The reply to feedback on one of the gateway's turns."""
    body = {"response_id": f"chatcmpl-{gateway.seen.turns[turn].id}", "correct": True, **fields}
    reply = await gateway.client.post("/v1/feedback", json=body)
    assert reply.status_code == status, reply.text
    told: dict[str, Any] = reply.json()
    return told


async def test_a_right_decision_and_a_wrong_one_are_counted_under_their_tool() -> None:
    async with watched_gateway() as gateway:
        for correct in (True, True, False):
            await gateway.chat(ASK)
            told = await judged(gateway, correct=correct)
        assert (await gateway.value(RIGHT), await gateway.value(WRONG)) == (2, 1)
    assert (told["toolset"], told["tool"], told["counted"], told["stored"]) == ("files", "read_file", True, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_is_judged_by_the_id_that_it_bears(stream: bool) -> None:
    async with watched_gateway() as gateway:
        reply = await gateway.chat(ASK, stream=stream)
        reply_id = json.loads(reply.text.split("\n")[0].removeprefix("data: "))["id"]
        told = await gateway.client.post("/v1/feedback", json={"response_id": reply_id, "correct": True})
        assert (told.json()["response_id"], told.json()["counted"]) == (reply_id, True)


async def test_a_second_judgement_is_taken_but_not_counted() -> None:
    async with watched_gateway() as gateway:
        await gateway.chat(ASK)
        assert (await judged(gateway))["counted"] is True
        assert (await judged(gateway, correct=False))["counted"] is False
        assert (await gateway.value(RIGHT), await gateway.value(WRONG)) == (1, None)


async def test_each_of_several_calls_is_judged_by_its_id() -> None:
    choices = iter(["read_file", "list_directory", None])
    async with watched_gateway(selector=FakeSelector(lambda _: next(choices))) as gateway:
        reply = await gateway.chat(ASK, parallel_tool_calls=True)
        first, second = (call["id"] for call in reply.json()["choices"][0]["message"]["tool_calls"])
        unclear = await judged(gateway, status=400)
        assert (await judged(gateway, call_id=second))["tool"] == "list_directory"
        assert (await judged(gateway, call_id=first, correct=False))["counted"] is True
        assert await gateway.value(WRONG) == 1
    assert unclear["error"]["param"] == "call_id"
    assert first in unclear["error"]["message"]


async def test_tools_and_labels_of_strangers_are_no_labels() -> None:
    async with watched_gateway(selector=FakeSelector(lambda _: "mine")) as gateway:
        await gateway.chat(ASK, tools=[tool("mine").openai()])
        assert (await judged(gateway, expected_tool="whatever", correct=False))["toolset"] is None
        assert await gateway.value('agentflux_feedback_total{correct="false",tool="other",toolset="other"}') == 1


async def test_an_answer_can_be_judged_too() -> None:
    async with watched_gateway(selector=FakeSelector(lambda _: None)) as gateway:
        await gateway.chat(ASK)
        assert (await judged(gateway, correct=False, expected_tool="read_file"))["tool"] is None
        assert await gateway.value('agentflux_feedback_total{correct="false",tool="answer",toolset="files"}') == 1


@pytest.mark.parametrize("reply_id", ["chatcmpl-unknown", f"chatcmpl-{'0' * 32}", "resp_" + "0" * 32, "💥"])
async def test_an_unknown_reply_is_not_found(reply_id: str) -> None:
    async with watched_gateway() as gateway:
        reply = await gateway.client.post("/v1/feedback", json={"response_id": reply_id, "correct": True})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert "feedback_ttl_s" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"correct": "yes"}, "correct"),
        ({"correct": None}, "correct"),
        ({"call_id": "call_nobody"}, "call_id"),
        ({"call_id": 7}, "call_id"),
        ({"correct": False, "expected_tool": "fly"}, "expected_tool"),
        ({"expected_tool": "list_directory"}, "expected_tool"),
        ({"expected_arguments": {}}, "expected_arguments"),
        ({"correct": False, "expected_arguments": "{}"}, "expected_arguments"),
        ({"correct": False, "expected_arguments": {"path": "x" * 70_000}}, "expected_arguments"),
        ({"comment": "x" * 5000}, "comment"),
        ({"expected_tol": "read_file"}, "expected_tol"),
    ],
)
async def test_a_bad_body_is_refused_by_the_name_of_its_field(fields: dict[str, Any], param: str) -> None:
    async with watched_gateway() as gateway:
        await gateway.chat(ASK)
        error = (await judged(gateway, status=400, **fields))["error"]
        assert (error["code"], error["param"]) == ("invalid_request", param)
        assert await gateway.value(RIGHT) is None


async def test_an_empty_body_is_refused() -> None:
    async with watched_gateway() as gateway:
        reply = await gateway.client.post("/v1/feedback", json={})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_id")


@pytest.mark.real
async def test_feedback_reaches_a_reply_of_another_replica_and_counts_once(valkey: Valkey) -> None:
    def blobs() -> Blobs:
        return RedisBlobs(valkey.url, timeout_s=2, ttl_s=60)

    async with watched_gateway(blobs=blobs()) as one, watched_gateway(blobs=blobs()) as other:
        await one.chat(ASK)
        # A turn is kept for its judges beside its reply, not before it.
        async with asyncio.timeout(10):
            body = {"response_id": f"chatcmpl-{one.seen.turns[-1].id}", "correct": True}
            while (reply := await other.client.post("/v1/feedback", json=body)).status_code == 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert reply.json()["counted"] is True
        assert (await judged(one))["counted"] is False
        assert (await other.value(RIGHT), await one.value(RIGHT)) == (1, None)


async def test_a_store_that_is_gone_costs_no_turn_and_is_counted() -> None:
    class Gone:
        async def load(self, keys: Any) -> Any:
            raise Unavailable("Redis is gone")

        async def save(self, key: str, value: bytes) -> None:
            raise Unavailable("Redis is gone")

        async def delete(self, key: str) -> bool:
            raise Unavailable("Redis is gone")

        async def ready(self) -> str | None:
            return "Redis is gone"

        async def aclose(self) -> None:
            pass

    async with watched_gateway(blobs=Gone()) as gateway:
        assert (await gateway.chat(ASK)).status_code == 200
        assert (await judged(gateway, status=503))["error"]["code"] == "service_unavailable"
        assert await gateway.value("agentflux_feedback_lost_total") == 1


def test_a_turn_without_a_decision_is_one_answer() -> None:
    assert [each.tool for each in decisions_of(TurnRecord())] == [None]
