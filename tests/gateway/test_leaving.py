"""What leaves the gateway, by every door, to a real server elsewhere, and what never does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.gateway.upstreams import Upstreams, UpstreamsFile
from services.shared.clients.upstream import UpstreamClient
from tests.fakes import FakeSelector
from tests.gateway.watched import TOOLS, Watched, watched_gateway
from tests.shared.clients.test_upstream import Server
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
TEXT = "Say hello."
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "base", "messages": [{"role": "user", "content": TEXT}]},
    "/v1/responses": {"model": "base", "input": TEXT},
    "/v1/messages": {"model": "base", "max_tokens": 50, "messages": [{"role": "user", "content": TEXT}]},
}
POLICY = {"callers": ["anonymous"], "answer": "big", "low_margin": {"upstream": "big", "below": 0.9}}
TOLD = "x-agentflux-upstream"


@asynccontextmanager
async def gateway_beside(server: Server, **parts: Any) -> AsyncIterator[Watched]:
    """A gateway that may leave everything of everybody to `server`."""
    async with served(server.app) as url:
        spec = {"base_url": f"{url}/some/v1", "model": "big-model"}
        file = UpstreamsFile.model_validate({"upstreams": {"big": spec}, "policies": [POLICY]})
        client = UpstreamClient(spec["base_url"], name="big", model="big-model", key_file=None, timeout_s=5)
        upstreams = Upstreams(file, {"big": client}, lambda *_: None)
        async with watched_gateway(upstreams=upstreams, **parts) as gateway:
            yield gateway
        await client.aclose()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("door", DOORS)
async def test_an_answer_from_elsewhere_comes_by_every_door_and_says_so(door: str, stream: bool) -> None:
    server = Server()
    async with gateway_beside(server) as gateway:
        reply = await gateway.client.post(door, json={**DOORS[door], "stream": stream})
    assert reply.status_code == 200
    assert ("Hel lo" if stream else "Hello.") in reply.text
    assert json.loads(reply.headers[TOLD]) == {"upstream": "big", "for": "answer", "failure": None}
    assert len(server.got) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("marked", ["header", "metadata"])
@pytest.mark.parametrize("door", DOORS)
async def test_a_request_marked_private_never_leaves(door: str, marked: str, stream: bool) -> None:
    server = Server()
    headers = {"x-agentflux-private": "true"} if marked == "header" else {}
    metadata = {"metadata": {"private": "true"}} if marked == "metadata" else {}
    async with gateway_beside(server, selector=FakeSelector(lambda _: None)) as gateway:
        for tools in ({}, {"tools": [tool.openai() for tool in TOOLS]} if "chat" in door else {}):
            body = {**DOORS[door], **metadata, **tools, "stream": stream}
            reply = await gateway.client.post(door, json=body, headers=headers)
            assert reply.status_code == 200
            assert TOLD not in reply.headers
    assert server.got == []


async def test_a_stored_response_never_leaves_with_the_one_that_follows_it() -> None:
    server = Server()
    async with gateway_beside(server) as gateway:
        private = {"x-agentflux-private": "true"}
        first = await gateway.client.post("/v1/responses", json=DOORS["/v1/responses"], headers=private)
        follows = {**DOORS["/v1/responses"], "previous_response_id": first.json()["id"]}
        assert (await gateway.client.post("/v1/responses", json=follows)).status_code == 200
    assert server.got == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_fails_is_made_up_for_here_and_told(stream: bool) -> None:
    async with gateway_beside(Server(b"down", status=500)) as gateway:
        reply = await gateway.chat([{"role": "user", "content": TEXT}], tools=None, stream=stream)
    assert reply.status_code == 200
    assert "done." in reply.text
    assert json.loads(reply.headers[TOLD]) == {"upstream": "big", "for": "answer", "failure": "upstream_error"}


async def test_a_low_margin_is_decided_elsewhere_and_the_arguments_are_written_here() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "list_directory", "arguments": '{"theirs": 1}'}}
    server = Server(json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [call]}}]}).encode())
    async with gateway_beside(server) as gateway:
        reply = await gateway.chat([{"role": "user", "content": TEXT}])
        [turn] = gateway.seen.turns
    [written] = reply.json()["choices"][0]["message"]["tool_calls"]
    assert written["function"] == {"name": "list_directory", "arguments": '{"path":"a"}'}
    selection = json.loads(reply.headers["x-agentflux-selection"])
    assert (selection["tool"], selection["adapter"], selection["margin"]) == ("list_directory", "upstream:big", 0.8)
    assert json.loads(reply.headers[TOLD])["for"] == "low_margin"
    assert reply.json()["id"] == f"chatcmpl-{turn.id}"
