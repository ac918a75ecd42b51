"""The client of a model elsewhere against a real HTTP server: what it sends, and what it bears."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from services.shared.clients.upstream import MAX_REPLY_BYTES, UpstreamClient
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded, Unavailable, UpstreamError
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
BODY: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]}
CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "Hel lo"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]


class Server:
    """A small OpenAI-compatible server that replies with what it is given, and remembers what it got."""

    def __init__(
        self, reply: bytes | None = None, *, status: int = 200, headers: dict[str, str] | None = None, delay_s: float = 0
    ):
        self.reply, self.status, self.headers, self.delay_s = reply, status, headers or {}, delay_s
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.app = FastAPI()
        self.app.post("/some/v1/chat/completions")(self.completions)

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.got.append((dict(request.headers), body))
        await asyncio.sleep(self.delay_s)
        if self.reply is not None:
            return Response(self.reply, self.status, self.headers)
        if not body["stream"]:
            return Response(json.dumps(COMPLETION))
        return StreamingResponse(self._frames(), media_type="text/event-stream")

    async def _frames(self) -> AsyncIterator[str]:
        for chunk in CHUNKS:
            yield f": ping\n\ndata: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"


@asynccontextmanager
async def client_of(server: Server, *, key_file: Path | None = None, timeout_s: float = 5) -> AsyncIterator[UpstreamClient]:
    async with served(server.app) as url:
        client = UpstreamClient(f"{url}/some/v1", name="big", model="big-model", key_file=key_file, timeout_s=timeout_s)
        try:
            yield client
        finally:
            await client.aclose()


async def streamed(client: UpstreamClient) -> list[Any]:
    return [chunk async for chunk in client.stream_chat(BODY)]


async def test_an_answer_comes_as_it_is_whole_and_in_chunks() -> None:
    server = Server()
    async with client_of(server) as client:
        assert await client.chat(BODY) == COMPLETION
        assert await streamed(client) == CHUNKS
    (_, whole), (_, chunked) = server.got
    assert whole == {**BODY, "model": "big-model", "stream": False}
    assert chunked["stream_options"] == {"include_usage": True}


async def test_the_key_goes_along_and_our_own_headers_do_not(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    server = Server()
    structlog.contextvars.bind_contextvars(request_id="ours")
    async with client_of(server, key_file=key_file) as client:
        for key in ("first", "second"):
            key_file.write_text(f"{key}\n")
            await client.chat(BODY)
    structlog.contextvars.unbind_contextvars("request_id")
    assert [headers["authorization"] for headers, _ in server.got] == ["Bearer first", "Bearer second"]
    for headers, _ in server.got:
        assert not {"x-request-id", "traceparent", "tracestate", "baggage"} & headers.keys()
        assert "ours" not in headers.values()


async def test_a_key_that_is_gone_is_an_error_with_a_name_and_nothing_is_asked(tmp_path: Path) -> None:
    server = Server()
    async with client_of(server, key_file=tmp_path / "gone") as client:
        with pytest.raises(Unavailable, match="key cannot be read"):
            await client.chat(BODY)
    assert server.got == []


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        (Server(b"<html>", status=502), UpstreamError),
        (Server(b'{"error": {"message": "wrong key", "code": "invalid_api_key"}}', status=401), AgentFluxError),
        (Server(b"not json"), UpstreamError),
        (Server(b'{"choices": []}'), UpstreamError),
        (Server(b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}'), UpstreamError),
        (Server(b'{"choices": 7, "data": "x"}'), UpstreamError),
        (Server(b"x" * (MAX_REPLY_BYTES + 1)), Unavailable),
        (Server(gzip.compress(b"{}"), headers={"content-encoding": "gzip"}), Unavailable),
        (Server(delay_s=2), DeadlineExceeded),
    ],
    ids=["502", "401", "text", "empty", "nameless", "shape", "endless", "compressed", "slow"],
)
async def test_whatever_comes_back_is_an_error_of_ours(server: Server, kind: type[AgentFluxError]) -> None:
    async with client_of(server, timeout_s=0.5 if server.delay_s else 5) as client:
        with pytest.raises(kind):
            await client.chat(BODY)


@pytest.mark.parametrize(
    "frames",
    [
        b'data: {"error": {"message": "overloaded"}}\n\n',
        b"data: {broken\n\n",
        b'data: {"choices": 7}\n\n',
        b'data: {"choices": [{"delta": 7}]}\n\n',
        b'data: {"choices": []}\n\n',
        b"data: " + b"x" * (MAX_REPLY_BYTES + 1),
    ],
    ids=["error", "text", "shape", "delta", "early end", "endless line"],
)
async def test_a_stream_that_is_none_is_an_error_of_ours(frames: bytes) -> None:
    async with client_of(Server(frames)) as client:
        with pytest.raises((UpstreamError, Unavailable)):
            await streamed(client)


async def test_nobody_there_is_an_error_of_ours() -> None:
    client = UpstreamClient("http://127.0.0.1:9/v1", name="big", model="m", key_file=None, timeout_s=1)
    with pytest.raises(Unavailable, match="upstream big"):
        await client.chat(BODY)
    await client.aclose()
