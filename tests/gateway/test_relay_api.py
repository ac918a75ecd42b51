"""The relayed doors over a real HTTP server, before the real engine client and an engine on vLLM's wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from services.engine.vllm_plugin.edge import ClosedRoutes
from services.gateway.api import relay
from services.gateway.api.turns import Turns
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue, Toolset
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.clients.engines import EngineFleet
from services.shared.contracts.calls import Ladder
from tests.fakes import FakeMemory, FakeSelector, FakeWriter
from tests.shared.serving import served

pytestmark = pytest.mark.anyio

ADAPTER = "files.select--0123456789ab"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
OVERFLOW = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."


class Engine:
    """Completes everything with two words, and has a vector for everything; `fails` is what it answers instead."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails: tuple[int, str] | None = None
        self.started, self.left = asyncio.Event(), asyncio.Event()
        self.silent_s = 0.0
        self.breaks = False
        self.app = FastAPI()
        # Cancels what was asked by a client that left, as vLLM does.
        install_edge(self.app, ServiceSettings())
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/completions")(self.completions)
        self.app.post("/v1/embeddings")(self.embeddings)

    async def models(self) -> dict[str, Any]:
        return {"data": [{"id": "base", "max_model_len": 8192}]}

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.fails:
            status, message = self.fails
            return JSONResponse({"error": {"message": message, "type": "X", "param": None, "code": status}}, status)
        if body.get("stream"):
            return StreamingResponse(self._words(), media_type="text/event-stream")
        self.started.set()
        await self._wait()
        reply = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "base", "kv_transfer_params": None}
        choice = {"index": 0, "text": "a b", "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        return JSONResponse({**reply, "choices": [choice], "usage": USAGE})

    async def embeddings(self, request: Request) -> Response:
        self.asked.append(await request.json())
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        return JSONResponse({"id": "e", "object": "list", "data": data, "model": "base", "usage": USAGE})

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(self.silent_s)
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def _words(self) -> AsyncGenerator[str]:
        frame = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "base"}
        self.started.set()
        for text, finish in (("a ", None), ("b", "stop")):
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
            yield f"data: {json.dumps({**frame, 'choices': [choice]})}\n\n"
            await self._wait()
            if self.breaks:
                error = {"message": "EngineCore died", "type": "X", "code": 500}
                yield f"data: {json.dumps({'error': error})}\n\n"
        yield f"data: {json.dumps({**frame, 'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n"


@asynccontextmanager
async def gateway(engine: Any, *, timeout_s: float = 30) -> AsyncIterator[str]:
    """The URL of a gateway before an engine, which is an ASGI application."""
    async with served(engine) as engine_url:
        fleet = EngineFleet.connect(engine_url, timeout_s=10, role="answers", base_model="base")
        app = FastAPI()
        edge = install_edge(app, ServiceSettings())
        catalogue = Catalogue("base", [Toolset("files", [], "d" * 64)])
        look_ahead = LookAhead(FakeWriter(), adapters=0)
        pipeline = Pipeline(fleet, FakeSelector(lambda _: None), FakeWriter(), FakeMemory(), catalogue, Ladder(), look_ahead)
        turns = Turns(pipeline, GatewayMetrics(edge.registry), timeout_s, keepalive_s=0.05)
        app.include_router(relay.router(turns, fleet, catalogue))
        async with served(app) as url:
            yield url
        await fleet.aclose()


@asynccontextmanager
async def client(engine: Any, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        gateway(engine, **options) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as asking,
    ):
        yield asking


@asynccontextmanager
async def plain(engine: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(engine, **options) as url, httpx.AsyncClient(base_url=url, timeout=20) as asking:
        yield asking


@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"], [1, 2, 3], [[1, 2], [3]]])
async def test_prompts_of_every_form_reach_the_engine_as_they_are_with_the_documented_fields(prompt: Any) -> None:
    engine = Engine()
    fields: dict[str, Any] = {"max_tokens": 2, "n": 2, "echo": True, "logprobs": 1, "seed": 7, "stop": ["."], "temperature": 0.5}
    strange = {"prompt_embeds": "x", "priority": -5, "logprob_token_ids": [1], "vllm_xargs": {}}
    async with client(engine.app) as asking:
        reply = await asking.completions.create(model="base", prompt=prompt, extra_body=strange, **fields)
    assert engine.asked == [{"model": "base", "prompt": prompt, **fields}]
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("a b", "stop")
    assert reply.usage is not None
    assert reply.usage.total_tokens == 5


async def test_the_engines_own_fields_do_not_leak() -> None:
    async with plain(Engine().app) as asking:
        body = (await asking.post("/v1/completions", json={"model": "base", "prompt": "a"})).json()
    assert body.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert body["choices"][0].keys() == {"index", "text", "logprobs", "finish_reason"}


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_streamed_completion_ends_with_usage_only_when_asked_for(include_usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    async with client(Engine().app) as asking:
        stream = await asking.completions.create(model="base", prompt="a", stream=True, **options)
        chunks = [chunk async for chunk in stream]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "a b"
    told = [chunk.usage.total_tokens if chunk.usage else None for chunk in chunks]
    assert told == ([None, None, 5] if include_usage else [None, None])
    assert all(("usage" in chunk.model_fields_set) is include_usage for chunk in chunks)


async def test_embeddings_come_from_an_engine_that_has_them() -> None:
    engine = Engine()
    async with client(engine.app) as asking:
        reply = await asking.embeddings.create(model="base", input=["a"], encoding_format="float", user="u")
    assert reply.data[0].embedding == [0.5, 0.25]
    assert engine.asked == [{"model": "base", "input": ["a"], "encoding_format": "float"}]


async def test_an_engine_without_them_is_a_404_that_says_so() -> None:
    """The plugin's door, in front of every engine that we launch, has no such route; neither has a vLLM that generates text."""
    for engine in (ClosedRoutes(Engine().app), FastAPI()):
        async with client(engine) as asking:
            with pytest.raises(openai.NotFoundError, match="this engine does not serve /v1/embeddings") as caught:
                await asking.embeddings.create(model="base", input="a")
        assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("model", "status", "word"), [("gpt-4o", 404, "base, files"), ("files", 400, "'base'"), (ADAPTER, 404, "'files'")]
)
async def test_only_the_base_model_completes_and_embeds(model: str, status: int, word: str) -> None:
    engine = Engine()
    async with plain(engine.app) as asking:
        for path, field in (("completions", "prompt"), ("embeddings", "input")):
            reply = await asking.post(f"/v1/{path}", json={"model": model, field: "a"})
            assert (reply.status_code, reply.json()["error"]["param"]) == (status, "model")
            assert word in reply.json()["error"]["message"]
    assert not engine.asked


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {}),
        ("completions", {"prompt": []}),
        ("completions", {"prompt": ""}),
        ("completions", {"prompt": "a", "n": 0}),
        ("completions", {"prompt": ["a"] * 65, "n": 2}),
        ("embeddings", {}),
        ("embeddings", {"input": [[1]] * 2049}),
    ],
)
async def test_bad_input_and_too_much_of_it_is_a_400(path: str, body: dict[str, Any]) -> None:
    engine = Engine()
    async with plain(engine.app) as asking:
        reply = await asking.post(f"/v1/{path}", json={"model": "base", **body})
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not engine.asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fails", "status", "code", "param"),
    [
        ((400, "`logprobs` must be a positive value or -1."), 400, "invalid_request", None),
        ((400, OVERFLOW), 400, "context_length_exceeded", "prompt"),
        ((500, "EngineCore encountered an issue."), 503, "engine_unavailable", None),
        ((404, "The model `base` does not exist."), 400, "invalid_request", None),
    ],
)
async def test_errors_of_the_engine_are_errors_of_ours(fails, status, code, param, stream) -> None:
    engine = Engine()
    engine.fails = fails
    async with plain(engine.app) as asking:
        reply = await asking.post("/v1/completions", json={"model": "base", "prompt": "a", "stream": stream})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, param)


async def test_a_silence_is_bridged_and_an_error_in_mid_stream_is_a_frame() -> None:
    engine = Engine()
    engine.silent_s, engine.breaks = 0.3, True
    async with plain(engine.app) as asking:
        reply = await asking.post("/v1/completions", json={"model": "base", "prompt": "a", "stream": True})
    assert ": keep-alive\n\n" in reply.text
    data = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data[-2])["error"]["code"] == "engine_unavailable"
    assert data[-1] == "[DONE]"


async def test_a_request_that_takes_too_long_is_ended() -> None:
    engine = Engine()
    engine.silent_s = 60
    async with plain(engine.app, timeout_s=0.2) as asking:
        reply = await asking.post("/v1/completions", json={"model": "base", "prompt": "a"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
        async with asyncio.timeout(5):
            await engine.left.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_engines_work(stream: bool) -> None:
    engine = Engine()
    engine.silent_s = 60
    async with plain(engine.app) as asking:
        request = asyncio.create_task(asking.post("/v1/completions", json={"model": "base", "prompt": "a", "stream": stream}))
        await engine.started.wait()
        await asyncio.sleep(0.1)
        request.cancel()
        async with asyncio.timeout(5):
            await engine.left.wait()
