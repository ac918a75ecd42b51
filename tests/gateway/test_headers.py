"""Truth headers over a real HTTP server: on whole, streamed and failed replies."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.errors import ArgumentsInvalid
from tests.fakes import FakeSelector, FakeWriter
from tests.gateway.watched import watched_gateway

pytestmark = pytest.mark.anyio
ASK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def parts(header: str) -> list[str]:
    found = re.findall(r"(\w+);dur=\d+\.\d(?:, |$)", header)
    assert ", ".join(found).count(",") == header.count(",")
    return found


async def test_a_whole_reply_tells_where_its_time_went() -> None:
    async with watched_gateway() as gateway:
        called = await gateway.chat(ASK)
        answered = await gateway.chat(ASK, tools=None)
    assert parts(called.headers["server-timing"]) == ["queue", "select", "arguments"]
    assert parts(answered.headers["server-timing"]) == ["queue", "engine"]
    assert "x-agentflux-selection" not in answered.headers
    for reply in (called, answered):
        assert reply.headers["openai-version"] == "2020-10-01"
        assert reply.headers["x-request-id"]
        assert reply.headers.get_list("server-timing") == [reply.headers["server-timing"]]


async def test_a_stream_tells_the_rest_at_its_end() -> None:
    class Waiting(FakeWriter):
        """Writes nothing before the headers are out."""

        def __init__(self) -> None:
            super().__init__()
            self.headers_out = asyncio.Event()

        async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
            await self.headers_out.wait()
            return await super().generate(request)

    writer = Waiting()
    async with watched_gateway(writer=writer) as gateway:
        ask = {"model": "base", "messages": ASK, "stream": True, "tools": [{"type": "function", "function": {"name": "f"}}]}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=ask) as reply:
            writer.headers_out.set()
            text = (await reply.aread()).decode()
    assert parts(reply.headers["server-timing"]) == ["queue", "select"]
    assert json.loads(reply.headers["x-agentflux-selection"])["margin"] == 0.8
    assert "x-agentflux-arguments" not in reply.headers
    *_, done, comment, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert parts(comment.removeprefix(": server-timing ")) == ["queue", "select", "arguments"]


async def test_a_turn_that_failed_tells_how_far_it_came() -> None:
    class Failing(FakeWriter):
        async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
            raise ArgumentsInvalid("twice invalid")

    async with watched_gateway(writer=Failing()) as gateway:
        reply = await gateway.chat(ASK)
        refused = await gateway.chat([])
        lost = await gateway.client.get("/nowhere")
    assert reply.status_code == 422
    assert parts(reply.headers["server-timing"]) == ["queue", "select"]
    assert json.loads(reply.headers["x-agentflux-selection"])["tool"] == "read_file"
    assert (refused.status_code, lost.status_code) == (400, 404)
    for early in (refused, lost):
        assert early.headers["openai-version"]
        assert "server-timing" not in early.headers


async def test_several_calls_are_all_told() -> None:
    choices = iter(["read_file", "list_directory", None])
    async with watched_gateway(selector=FakeSelector(lambda _: next(choices))) as gateway:
        reply = await gateway.chat(ASK, parallel_tool_calls=True)
    told = json.loads(reply.headers["x-agentflux-selection"])
    assert [told["tool"], *(each["tool"] for each in told["further"])] == ["read_file", "list_directory", None]


async def test_the_turns_of_two_requests_are_not_mixed_up() -> None:
    async with watched_gateway(selector=FakeSelector(lambda asked: asked.messages[-1]["content"])) as gateway:
        names = ["read_file", "list_directory"] * 10
        replies = await asyncio.gather(*(gateway.chat([{"role": "user", "content": name}]) for name in names))
    assert [json.loads(reply.headers["x-agentflux-selection"])["tool"] for reply in replies] == names
