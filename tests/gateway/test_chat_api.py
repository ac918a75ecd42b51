"""The chat door over a real HTTP server: silences, errors early and late, deadlines, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.api import chat
from services.gateway.api.headers import TruthHeaders
from services.gateway.api.turns import Turns
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import Ladder
from services.shared.contracts.errors import ArgumentsInvalid, EngineUnavailable
from services.shared.contracts.selection import Selection, SelectionRequest
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine, SlowSelector, tool
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
ASK: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "tools": [tool("read_file").openai()]}


class EndlessEngine(ScriptedEngine):
    """Talks until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def stream_chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        try:
            while True:
                yield {"choices": [{"index": 0, "delta": {"content": "word " * 1000}, "finish_reason": None}]}
                await asyncio.sleep(0)
        finally:
            self.closed.set()


class BurstyEngine(ScriptedEngine):
    """Says three words at once, and is done a little later."""

    async def stream_chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        for word in ("one", "two", "three"):
            yield {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        await asyncio.sleep(0.02)
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class Written:
    """ASGI middleware that keeps the pieces in which a reply is written."""

    def __init__(self, app: ASGIApp, *, pieces: list[bytes]) -> None:
        self.app = app
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def keep(message: Message) -> None:
            if message["type"] == "http.response.body":
                self.pieces.append(message["body"])
            await send(message)

        await self.app(scope, receive, keep)


@asynccontextmanager
async def gateway(
    *, selector: Any = None, writer: Any = None, engine: Any = None, timeout_s: float = 30, pieces: list[bytes] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway whose services are the given stand-ins; `pieces` gets what it writes."""
    app = FastAPI()
    edge = install_edge(app, ServiceSettings())
    catalogue = Catalogue("base", [])
    pipeline = Pipeline(
        engine or ScriptedEngine(),
        selector or FakeSelector(lambda _: "read_file"),
        writer or FakeWriter(),
        FakeMemory(),
        catalogue,
        Ladder(),
        LookAhead(FakeWriter(), adapters=0),
    )
    app.include_router(chat.router(Turns(pipeline, GatewayMetrics(edge.registry), timeout_s, keepalive_s=0.05), catalogue))
    app.add_middleware(TruthHeaders)
    app.add_middleware(Written, pieces=[] if pieces is None else pieces)
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield client


async def post(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**ASK, **fields})


def frames(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(frame) for frame in data[:-1]]


async def test_a_long_vote_is_bridged_by_comments() -> None:
    async with gateway(selector=SlowSelector(0.4)) as client:
        reply = await post(client, stream=True)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert ": keep-alive\n\n" in reply.text
    assert frames(reply.text)[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_frames_that_arrive_together_are_written_together_and_wait_for_no_other() -> None:
    pieces: list[bytes] = []
    async with gateway(engine=BurstyEngine(), pieces=pieces) as client:
        reply = await post(client, stream=True, tools=None)
    assert len(frames(reply.text)) == 4
    assert [piece.count(b"data: ") for piece in pieces] == [3, 1, 1]


async def test_an_error_before_anything_was_sent_has_its_own_status() -> None:
    class Gone(FakeSelector):
        async def select(self, request: SelectionRequest) -> Selection:
            raise EngineUnavailable("the engine is restarting")

    async with gateway(selector=Gone(lambda _: None)) as client:
        for stream in (False, True):
            reply = await post(client, stream=stream)
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "engine_unavailable"
            assert reply.headers["retry-after"]


async def test_an_error_in_the_middle_of_a_stream_is_a_frame() -> None:
    class Failing(FakeWriter):
        async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
            raise ArgumentsInvalid("twice invalid")

    async with gateway(writer=Failing()) as client:
        streamed, whole = await post(client, stream=True), await post(client)
    assert streamed.status_code == 200
    assert frames(streamed.text)[-1]["error"]["code"] == "arguments_invalid"
    assert whole.status_code == 422


async def test_a_request_that_takes_too_long_is_told_which_setting_ended_it() -> None:
    async with gateway(selector=SlowSelector(60), timeout_s=0.2) as client:
        reply = await post(client)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    assert "request_timeout_s" in reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_during_the_vote_ends_it(stream: bool) -> None:
    selector = SlowSelector(60)
    async with gateway(selector=selector) as client:
        request = asyncio.create_task(post(client, stream=stream))
        await selector.started.wait()
        request.cancel()
        async with asyncio.timeout(5):
            await selector.cancelled.wait()


async def test_a_client_that_stops_reading_and_leaves_ends_the_answer() -> None:
    """By then nobody takes events any more, and the turn waits for room to put the next one."""
    engine = EndlessEngine()
    async with gateway(engine=engine) as client:
        async with client.stream("POST", "/v1/chat/completions", json={**ASK, "tools": None, "stream": True}) as reply:
            await anext(reply.aiter_bytes())
            await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await engine.closed.wait()


async def test_the_headers_say_who_decided_and_who_wrote() -> None:
    selector = FakeSelector(lambda _: "read_file")
    selector.release = 7
    async with gateway(selector=selector) as client:
        reply = await post(client)
    told = json.loads(reply.headers["x-agentflux-selection"])
    assert (told["tool"], told["adapter"], told["release"]) == ("read_file", "base", 7)
    assert json.loads(reply.headers["x-agentflux-arguments"]) == {"adapter": "base", "release": None, "attempts": 1}
