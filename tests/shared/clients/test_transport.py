"""Connections to peers that speak HTTP in every way that is allowed, and in some that are not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from services.shared.clients import transport as transports
from services.shared.clients.transport import AiohttpTransport
from tests.sandbox.test_tls import LOCALHOST, Authority

pytestmark = pytest.mark.anyio
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Peer:
    """A server that does with its connections what `handler` says, and what it saw of them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0
        self.ended = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._handler(reader, writer)
        writer.close()
        self.ended.set()

    @contextlib.asynccontextmanager
    async def reached(self, *, silence_s: float = 5) -> AsyncIterator[AiohttpTransport]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = AiohttpTransport(url, httpx.Timeout(silence_s))
        try:
            yield transport
        finally:
            await transport.aclose()
            server.close()


def says(*pieces: bytes, hangs_up: bool = False) -> Handler:
    """A server that answers every request with these bytes, written one after the other."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if hangs_up:
                return

    return handler


@contextlib.asynccontextmanager
async def closed_afterwards(url: str, *, connect_s: float = 5) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(url, httpx.Timeout(5, connect=connect_s))
    try:
        yield transport
    finally:
        await transport.aclose()


async def fetched(transport: AiohttpTransport, content: bytes = b"") -> bytes:
    reply = await transport.send("POST", "/", {"content-type": "application/json"}, content)
    try:
        return await reply.aread()
    finally:
        await reply.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;note=1\r\nhi\r\n0\r\ntrailer: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK,
    ],
    ids=["length", "chunked", "extension and trailer", "interim replies"],
)
async def test_a_reply_is_the_same_wherever_it_is_cut(reply):
    for pieces in ([reply], [reply[at : at + 1] for at in range(len(reply))]):
        peer = Peer(says(*pieces))
        async with peer.reached() as transport:
            assert [await fetched(transport) for _ in range(3)] == [b"hi"] * 3
        assert peer.connections == 1


async def test_a_body_without_a_length_ends_with_its_connection():
    peer = Peer(says(b"HTTP/1.1 200 OK\r\n\r\n", b"h", b"i", hangs_up=True))
    async with peer.reached() as transport:
        assert [await fetched(transport) for _ in range(2)] == [b"hi"] * 2
    assert peer.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        OK + OK,
    ],
    ids=["close", "HTTP/1.0", "two replies"],
)
async def test_a_connection_that_may_be_unsound_is_not_used_again(reply):
    peer = Peer(says(reply))
    async with peer.reached() as transport:
        assert [await fetched(transport) for _ in range(2)] == [b"hi"] * 2
    assert peer.connections == 2


async def test_a_connection_that_the_peer_closed_meanwhile_is_not_used_again():
    peer = Peer(says(OK, hangs_up=True))
    async with peer.reached() as transport:
        assert await fetched(transport) == b"hi"
        await peer.ended.wait()
        await asyncio.sleep(0.05)
        assert await fetched(transport) == b"hi"
    assert peer.connections == 2


async def test_a_connection_that_rested_too_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(transports, "KEEP_ALIVE_S", 0)
    peer = Peer(says(OK))
    async with peer.reached() as transport:
        assert [await fetched(transport) for _ in range(3)] == [b"hi"] * 3
    assert peer.connections == 3


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (400_000),
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 65_536,
    ],
    ids=["not HTTP", "two lengths", "a header without end", "headers without end"],
)
async def test_what_is_no_reply_is_an_error_and_ends_the_connection(reply):
    peer = Peer(says(reply))
    async with peer.reached() as transport:
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(fetched(transport), 5)
        await asyncio.wait_for(peer.ended.wait(), 5)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"HTTP/1.1 200 OK\r\n"])
async def test_a_reply_that_breaks_off_is_an_error(reply):
    async with Peer(says(reply, hangs_up=True)).reached() as transport:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await fetched(transport)


async def test_a_peer_that_is_faster_than_its_reader_has_to_wait():
    whole, piece = 64 * 1024 * 1024, b"x" * 65536
    written = 0

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % whole)
        while written < whole:
            writer.write(piece)
            await writer.drain()
            written += len(piece)

    async with Peer(pours).reached(silence_s=0.3) as transport:
        reply = await transport.send("GET", "/", {}, b"")
        # Longer than silence is borne: it is the reader who is silent.
        await asyncio.sleep(0.7)
        assert written < whole / 2
        assert sum([len(part) async for part in reply.aiter_bytes()]) == whole
        await reply.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://no-such-host.invalid"])
async def test_a_host_that_is_not_there_is_a_refused_connection(url):
    async with closed_afterwards(url) as transport:
        with pytest.raises(httpx.ConnectError):
            await fetched(transport)


async def test_a_name_that_is_not_resolved_in_time_is_a_connection_that_was_not_made_in_time(monkeypatch):
    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs)
    async with asyncio.timeout(10), closed_afterwards("http://slow-name.invalid", connect_s=0.1) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await fetched(transport)


async def test_https_is_spoken_with_whom_the_machine_trusts(tmp_path, monkeypatch):
    authority = Authority(tmp_path, "authority")
    authority.files("peer", LOCALHOST, ca=None)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(tmp_path / "peer.crt", tmp_path / "peer.key")
    peer = Peer(says(OK))
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0, ssl=ours)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    async with closed_afterwards(url) as distrusting:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await fetched(distrusting)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with closed_afterwards(url) as trusting:
        assert [await fetched(trusting) for _ in range(3)] == [b"hi"] * 3
    assert peer.connections == 1
    server.close()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://host:99999", f"http://{'h' * 300}", "http://"])
async def test_what_is_no_url_of_a_service_is_refused(url):
    async with closed_afterwards(url) as transport:
        with pytest.raises(httpx.TransportError):
            await fetched(transport)


async def test_a_large_request_arrives_whole():
    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    body = bytes(range(256)) * 40_000
    async with Peer(echoes).reached() as transport:
        assert await fetched(transport, body) == body
