"""The only way out of a sandbox: an HTTP proxy on a unix socket, which connects to the destinations of one toolset's list.

It resolves names itself, checks the address and connects to exactly that one, so a name cannot point elsewhere a moment later.
It answers CONNECT only, and passes on nothing but TLS for the host that was asked for; what is said inside it cannot see.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.sandbox.egress import HEAD_BYTES, Destination, Refused, asked, destination, is_public
from services.sandbox.limits import MIB
from services.sandbox.metrics import SandboxMetrics

log = structlog.get_logger()

DOORS = "agentflux-egress-"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[list[str]]]
Connect = Callable[[str, int], Awaitable[Streams]]


@dataclass(frozen=True)
class EgressLimits:
    """Bounds of one sandbox's tunnels. Seconds, bytes and counts."""

    tunnels: int = 32
    open_s: float = 10.0
    idle_s: float = 60.0
    tunnel_s: float = 600.0
    tunnel_bytes: int = 64 * MIB


def _clear_doors() -> None:
    """Removes the directories of services that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{DOORS}*-*"):
        if not Path("/proc", left.name.removeprefix(DOORS).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, as this machine's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class EgressProxy:
    """Opens a proxy per sandbox. `resolve` and `connect` are the world; tests bring their own."""

    def __init__(
        self,
        metrics: SandboxMetrics,
        *,
        limits: EgressLimits | None = None,
        resolve: Resolve = resolve,
        connect: Connect = asyncio.open_connection,
    ) -> None:
        self._metrics = metrics
        self._limits = limits or EgressLimits()
        self._resolve = resolve
        self._connect = connect

    @asynccontextmanager
    async def door(self, network: tuple[str, ...]) -> AsyncGenerator[Path, None]:
        """A unix socket, alone in its directory, behind which the proxy for `network` answers; its tunnels end with the block."""
        allowed = frozenset(destination(entry) for entry in network)
        tunnels: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tunnels.add(task)
            task.add_done_callback(tunnels.discard)
            # Whoever hangs up, at either end, ends the tunnel and nothing else.
            with suppress(OSError):
                await self._serve(reader, writer, allowed, crowded=len(tunnels) > self._limits.tunnels)

        _clear_doors()
        with tempfile.TemporaryDirectory(prefix=f"{DOORS}{os.getpid()}-") as directory:
            # The outer directory is ours alone; the inner one is what a sandbox shows, to another user.
            path = Path(directory) / "door" / "proxy"
            os.mkdir(path.parent, 0o755)
            server = await asyncio.start_unix_server(accept, path, limit=HEAD_BYTES)
            os.chmod(path, 0o666)
            try:
                yield path
            finally:
                server.close()
                for task in list(tunnels):
                    task.cancel()
                await asyncio.gather(*tunnels, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: frozenset[Destination], *, crowded: bool
    ) -> None:
        wanted: Destination | None = None
        try:
            if crowded:
                raise Refused("too_many", "503 Service Unavailable", f"more than {self._limits.tunnels} connections at once")
            async with asyncio.timeout(self._limits.open_s):
                wanted = asked(await _head(reader), allowed)
                upstream, onward = await self._open(wanted)
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with asyncio.timeout(self._limits.open_s):
                    onward.write(await _hello(reader, wanted))
                await self._join((reader, onward), (upstream, writer), wanted)
            finally:
                onward.close()
        except Refused as error:
            self._refuse(writer, error, wanted)
        except TimeoutError:
            refused = Refused("timed_out", "504 Gateway Timeout", f"nothing came within {self._limits.open_s:g} s")
            self._refuse(writer, refused, wanted)
        finally:
            with suppress(OSError):
                await asyncio.wait_for(writer.drain(), self._limits.open_s)
            writer.close()

    def _refuse(self, writer: asyncio.StreamWriter, error: Refused, wanted: Destination | None) -> None:
        self._metrics.egress_refused.labels(error.reason).inc()
        log.warning("egress refused", reason=error.reason, destination=str(wanted or ""), why=str(error))
        if error.status:
            body = f"{error}\n".encode()
            head = f"HTTP/1.1 {error.status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)

    async def _open(self, wanted: Destination) -> Streams:
        try:
            addresses = await self._resolve(wanted.host, wanted.port)
        except OSError as error:
            raise Refused("unresolved", "502 Bad Gateway", f"{wanted.host} cannot be resolved: {error.strerror}") from None
        # One address inside makes the whole answer suspect: whoever controls the name chose it.
        if not addresses or not all(is_public(address) for address in addresses):
            raise Refused("private_address", "403 Forbidden", f"{wanted.host} is an address of a private network: {addresses}")
        for address in addresses[:4]:
            with suppress(OSError):
                return await self._connect(address, wanted.port)
        raise Refused("unreachable", "502 Bad Gateway", f"{wanted} cannot be reached")

    async def _join(self, out: Streams, back: Streams, wanted: Destination) -> None:
        copies = [asyncio.create_task(self._copy(*streams)) for streams in (out, back)]
        try:
            async with asyncio.timeout(self._limits.tunnel_s):
                await asyncio.gather(*copies)
        except TimeoutError:
            raise Refused("too_long", "", f"the tunnel to {wanted} was open or still for too long") from None
        finally:
            for copy in copies:
                copy.cancel()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._limits.tunnel_bytes
        while data := await asyncio.wait_for(reader.read(64 * 1024), self._limits.idle_s):
            left -= len(data)
            if left < 0:
                raise Refused("too_much", "", f"more than {self._limits.tunnel_bytes} bytes in one tunnel")
            writer.write(data)
            await asyncio.wait_for(writer.drain(), self._limits.idle_s)
        writer.write_eof()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        raise Refused("bad_request", "400 Bad Request", f"no request head within {HEAD_BYTES} bytes") from None


async def _hello(reader: asyncio.StreamReader, wanted: Destination) -> bytes:
    """The first bytes of a tunnel, once they show that they are meant for `wanted`."""
    hello = b""
    while (name := server_name(hello) if hello else None) is None:
        more = await reader.read(HEAD_BYTES)
        hello += more
        if not more or len(hello) > 4 * HEAD_BYTES:
            raise Refused("no_tls", "", "the tunnel did not begin with TLS")
    if name != wanted.host:
        raise Refused("other_name", "", f"the tunnel to {wanted} asks for {name[:300]!r}")
    return hello


def server_name(hello: bytes) -> str | None:
    """The name that a TLS client asks for, in lower case; None while `hello` is incomplete.

    Raises:
        Refused: this is no TLS, or a client that names nobody.
    """
    names: list[str] = []
    incoming = ssl.MemoryBIO()
    incoming.write(hello)
    # The TLS library itself reads the hello. It has no certificate, so it never gets beyond that.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(name or "")
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError:
        pass
    if not names or not names[0]:
        raise Refused("no_tls", "", "a tunnel has to begin with TLS that names its host")
    return names[0].lower()
