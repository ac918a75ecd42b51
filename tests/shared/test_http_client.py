"""How our services speak to each other, and what becomes of everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request

from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import (
    AgentFluxError,
    ArgumentsInvalid,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Unavailable,
    UpstreamError,
)
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def stranger(handler: Handler) -> AsyncIterator[str]:
    """The base URL of a server that does with its connections what `handler` says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def says(content: bytes, *, status: str = "200 OK", headers: str = "") -> Handler:
    """A server that answers every request with the same reply."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{headers}\r\n".encode() + content)
            await writer.drain()

    return handler


@contextlib.asynccontextmanager
async def client_of(url: str, *, timeout_s: float = 5, unavailable: type[Unavailable] = Unavailable) -> AsyncIterator[HttpClient]:
    client = HttpClient(url, service="engine", timeout_s=timeout_s, unavailable=unavailable)
    yield client
    await client.aclose()


async def failure(handler: Handler, *, timeout_s: float = 5, unavailable: type[Unavailable] = Unavailable) -> AgentFluxError:
    """The error which a GET ends in."""
    async with stranger(handler) as url, client_of(url, timeout_s=timeout_s, unavailable=unavailable) as client:
        with pytest.raises(AgentFluxError) as raised:
            await client.get("/v1/models")
        return raised.value


# --- Peers that are not there, or not well ---


async def test_a_refused_connection_is_unavailable_and_names_the_service():
    async with client_of("http://127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"engine at http://127\.0\.0\.1:1 cannot be reached"):
            await client.post("/v1/completions", {})


async def test_each_dependency_may_have_its_own_kind_of_unavailable(tmp_path):
    for url in ("http://127.0.0.1:1", f"unix:{tmp_path}/engine.sock", "127.0.0.1:8000"):
        async with client_of(url, unavailable=EngineUnavailable) as client:
            with pytest.raises(EngineUnavailable, match="engine at "):
                await client.get("/health")


async def test_silence_beyond_the_timeout_is_a_missed_deadline():
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    started = time.monotonic()
    error = await failure(silent, timeout_s=0.2)
    assert type(error) is DeadlineExceeded
    assert error.message == "engine did not answer /v1/models in time"
    assert time.monotonic() - started < 10


async def test_a_peer_that_hangs_up_without_an_answer_is_unavailable():
    async def hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    assert type(await failure(hangs_up, unavailable=EngineUnavailable)) is EngineUnavailable


async def test_a_peer_that_dies_within_its_answer_is_unavailable():
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"half": ')
        await writer.drain()

    assert type(await failure(dies)) is Unavailable


@pytest.mark.parametrize(
    "handler",
    [
        says(b"<html>Welcome to nginx</html>"),
        says(b""),
        says(b"not gzip", headers="content-encoding: gzip\r\n"),
        says(b"moved", status="302 Found", headers="location: http://elsewhere/\r\n"),
        says(b"<html>Bad Gateway</html>", status="502 Bad Gateway"),
    ],
    ids=["html", "nothing", "broken gzip", "redirect", "gateway"],
)
async def test_an_answer_that_is_not_what_was_promised_is_an_upstream_error(handler):
    error = await failure(handler)
    assert type(error) is UpstreamError
    assert error.message.startswith("engine answered ")


async def test_a_strangers_503_is_the_dependencys_own_unavailable():
    starting = says(b"starting", status="503 Service Unavailable")
    assert type(await failure(starting, unavailable=EngineUnavailable)) is EngineUnavailable


async def test_a_strangers_refusal_is_an_invalid_request_that_quotes_it():
    error = await failure(says(b'{"error": {"message": "n is too large", "code": 400}}', status="400 Bad Request"))
    assert type(error) is InvalidRequest
    assert "n is too large" in error.message


# --- A service of ours on the other side ---


class Peer:
    """One of our services, that says what it received."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.connections: set[int] = set()
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.app = FastAPI()
        install_edge(self.app, ServiceSettings())

        @self.app.post("/echo")
        async def echo(request: Request) -> dict[str, str]:
            self._note(request)
            return {"ascii": ascii(await request.json())}

        @self.app.delete("/thing", status_code=204)
        async def delete(request: Request) -> None:
            self._note(request)

        @self.app.post("/fails")
        async def fail() -> None:
            raise ArgumentsInvalid("path is missing", param="path")

        @self.app.post("/slow")
        async def slow() -> None:
            self.started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    def _note(self, request: Request) -> None:
        self.headers.append(dict(request.headers))
        assert request.client is not None
        self.connections.add(request.client.port)

    @contextlib.asynccontextmanager
    async def reached(self) -> AsyncIterator[HttpClient]:
        async with served(self.app) as url, client_of(url) as client:
            yield client


async def test_an_error_of_ours_crosses_the_hop_as_its_own_class():
    async with Peer().reached() as client:
        with pytest.raises(ArgumentsInvalid) as raised:
            await client.post("/fails", {})
        assert (raised.value.message, raised.value.param) == ("path is missing", "path")


async def test_cancelling_a_call_closes_its_connection_and_cancels_the_other_side():
    peer = Peer()
    async with peer.reached() as client:
        call = asyncio.create_task(client.post("/slow", {}))
        await peer.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(peer.cancelled.wait(), 1)


async def test_calls_share_a_connection_whatever_their_method():
    peer = Peer()
    async with peer.reached() as client:
        for _ in range(3):
            await client.post("/echo", {})
            await client.delete("/thing")
            with pytest.raises(ArgumentsInvalid):
                await client.post("/fails", {})
        assert len(peer.connections) == 1


async def test_the_request_id_travels_on_even_if_it_came_from_far():
    peer = Peer()
    async with peer.reached() as client:
        with structlog.contextvars.bound_contextvars(request_id="night-shift-7"):
            await client.post("/echo", {})
    assert peer.headers[0]["x-request-id"] == "night-shift-7"


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with Peer().reached() as client:
        assert await client.post("/echo", {}) == {"ascii": "{}"}


@pytest.mark.parametrize(
    "body", [{"text": "cut emoji \ud83d"}, {"id": 2**70}, {"text": "日本語 \u2028 \x00"}], ids=["half", "big", "text"]
)
async def test_whatever_a_client_may_send_arrives_unchanged(body):
    async with Peer().reached() as client:
        assert await client.post("/echo", body) == {"ascii": ascii(body)}


async def test_compressed_answers_are_read():
    packed = gzip.compress(b'{"data": []}')
    async with stranger(says(packed, headers="content-encoding: gzip\r\n")) as url, client_of(url) as client:
        assert await client.get("/v1/models") == {"data": []}


# --- Streams ---


def streams(*chunks: bytes, pause: float = 0.0, headers: str = "content-type: text/event-stream\r\n") -> Handler:
    """A server that sends these chunks one by one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n".encode())
        for chunk in chunks:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
            await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")

    return handler


EVENTS = 'data: {"text": "line\u2028separator \x85 \x0b \x1c 日本語"}\n\ndata: [DONE]\r\n\ntail'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_lines_end_at_line_feeds_only_wherever_the_chunks_are_cut(size):
    """JSON text may hold U+2028 and others at which `str.splitlines` would break an event in two."""
    raw = EVENTS.encode()
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    async with stranger(streams(*chunks)) as url, client_of(url) as client:
        lines = [line async for line in client.stream_lines("/v1/chat/completions", {})]
    assert lines == [EVENTS.split("\n")[0], "", "data: [DONE]", "", "tail"]


async def test_a_stream_may_last_longer_than_the_timeout_while_it_speaks():
    async with stranger(streams(*[b"data: x\n"] * 6, pause=0.1)) as url, client_of(url, timeout_s=0.4) as client:
        assert [line async for line in client.stream_lines("/", {})] == ["data: x"] * 6


async def test_a_stream_that_falls_silent_is_a_missed_deadline():
    async with stranger(streams(b"data: x\n", b"data: y\n", pause=30)) as url, client_of(url, timeout_s=0.3) as client:
        lines = client.stream_lines("/", {})
        assert await anext(lines) == "data: x"
        with pytest.raises(DeadlineExceeded):
            await anext(lines)


async def test_leaving_a_stream_closes_its_connection():
    left = asyncio.Event()

    async def never_ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: x\n\r\n")
        while not reader.at_eof():
            await reader.read(1000)
        left.set()

    async with stranger(never_ending) as url, client_of(url) as client:
        async with aclosing(client.stream_lines("/", {})) as lines:
            assert await anext(lines) == "data: x"
        await asyncio.wait_for(left.wait(), 1)


async def test_an_error_instead_of_a_stream_is_raised_before_the_first_line():
    async with Peer().reached() as client:
        with pytest.raises(ArgumentsInvalid):
            await anext(client.stream_lines("/fails", {}))


async def test_a_service_on_a_unix_socket_is_reached(tmp_path):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await says(b'{"data": []}')(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(handle, tmp_path / "s")
    async with client_of(f"unix:{tmp_path}/s") as client:
        assert await client.get("/v1/models") == {"data": []}
    server.close()


async def test_a_transport_can_be_handed_in():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"path": request.url.path}))
    client = HttpClient("http://engine", service="engine", timeout_s=1, transport=transport)
    assert await client.get("/v1/models") == {"path": "/v1/models"}
    await client.aclose()
