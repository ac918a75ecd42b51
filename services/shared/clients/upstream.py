"""A model that does not run here: an OpenAI-compatible server, asked with a key, and trusted with nothing but the question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import orjson
from pydantic import BaseModel, Field, ValidationError

from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import DeadlineExceeded, UpstreamError
from services.shared.contracts.tools import JsonObject

MAX_REPLY_BYTES = 16 * 1024 * 1024
# What our own services tell each other about a request is nobody's business elsewhere.
_OURS = ("x-request-id", "traceparent", "tracestate", "baggage")


class _Function(BaseModel):
    name: str = Field(min_length=1)


class _Call(BaseModel):
    function: _Function


class _Message(BaseModel):
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    index: int = 0
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: JsonObject | None = None


class _ChunkChoice(BaseModel):
    index: int = 0
    delta: JsonObject = {}


class _Chunk(BaseModel):
    choices: list[_ChunkChoice] = []
    usage: JsonObject | None = None


class UpstreamClient:
    """Chat completions of `model` at `base_url`, which has its `/v1`. The key is read anew for each request.

    `timeout_s` bounds a whole reply, and each silence of a streamed one. A reply has at most 16 MiB.
    """

    def __init__(self, base_url: str, *, name: str, model: str, key_file: Path | None, timeout_s: float) -> None:
        self._name = name
        self._model = model
        self._timeout_s = timeout_s
        transport = _Leaving(httpx.AsyncHTTPTransport(), key_file)
        self._http = HttpClient(base_url, service=f"upstream {name}", timeout_s=timeout_s, transport=transport)

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()

    async def chat(self, body: JsonObject) -> JsonObject:
        """The chat completion, as it is; at least its first message can be relied on.

        Raises:
            AgentFluxError: there is none.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._http.post("/chat/completions", {**body, "model": self._model, "stream": False})
        except TimeoutError as error:
            raise DeadlineExceeded(f"upstream {self._name} took longer than {self._timeout_s:g} s") from error
        return self._checked(reply, _Completion)

    async def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """The chat completion's chunks, the usage chunk included; raises as `chat` does."""
        asked = {**body, "model": self._model, "stream": True, "stream_options": {"include_usage": True}}
        async with aclosing(self._http.stream_data("/chat/completions", asked)) as chunks:
            async for data in chunks:
                yield self._chunk(data)

    def _chunk(self, data: str) -> JsonObject:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise UpstreamError(f"upstream {self._name} sent a frame that is not JSON") from error
        if isinstance(chunk, dict) and chunk.get("error"):
            raise UpstreamError(f"upstream {self._name}: {chunk['error']!r:.300}")
        return self._checked(chunk, _Chunk)

    def _checked(self, reply: object, shape: type[BaseModel]) -> JsonObject:
        try:
            shape.model_validate(reply)
        except ValidationError as error:
            raise UpstreamError(f"upstream {self._name} sent something that is no chat completion: {reply!r:.300}") from error
        assert isinstance(reply, dict)
        return reply


class _Leaving(httpx.AsyncBaseTransport):
    """The way out: puts the key on, takes our own headers off, and bounds what comes back."""

    def __init__(self, inner: httpx.AsyncBaseTransport, key_file: Path | None) -> None:
        self._inner = inner
        self._key_file = key_file

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name in _OURS:
            request.headers.pop(name, None)
        # Uncompressed, so that the bound is one on what we hold.
        request.headers["accept-encoding"] = "identity"
        if self._key_file:
            try:
                request.headers["authorization"] = f"Bearer {self._key_file.read_text().strip()}"
            except OSError as error:
                raise httpx.ConnectError(f"its key cannot be read: {error}") from error
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Bounded(response.stream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            raise httpx.RemoteProtocolError("it compressed its reply though it was asked not to")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_REPLY_BYTES
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise httpx.RemoteProtocolError(f"its reply is larger than {MAX_REPLY_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
