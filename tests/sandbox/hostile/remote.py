"""An MCP server over HTTP, by hand, which misbehaves on request: the tool's name says how it answers a call."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

DISCOVERED = {
    "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete",
    "ttlMs": 0, "cacheScope": "private",
}  # fmt: skip


# Nothing but the promise that more comes at once to whoever opens the stream again.
STREAM = b"id: 1\nretry: 0\ndata:\n\n"


@dataclass
class HostileRemote:
    """What it was asked, and how it behaves: `target` is where it redirects to, `changed` adds a tool to its list."""

    target: str = ""
    changed: bool = False
    status: bytes = b""
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    metas: list[dict] = field(default_factory=list)
    open: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL, while it serves."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                    length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                    message = json.loads(await reader.readexactly(length) or b"{}")
                    self.headers.append(head)
                    self.metas.append((message.get("params") or {}).get("_meta", {}))
                    self.asked.append(message.get("method", head.split(" ")[0]))
                    await self._answer(message, writer)
                    await writer.drain()
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, message: dict, writer: asyncio.StreamWriter) -> None:
        request_id, method = message.get("id"), message.get("method")
        if self.status:
            send(writer, b"no", kind="text/plain", status=self.status)
        elif method == "server/discover":
            send(writer, result(request_id, DISCOVERED))
        elif method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in [*ANSWERS, *(["new"] if self.changed else [])]]
            send(writer, result(request_id, {"tools": tools, **DISCOVERED}))
        elif method is None:
            # The stream is opened again: it ends again.
            send(writer, STREAM, kind="text/event-stream")
        elif method == "tools/call":
            await ANSWERS[message["params"]["name"]](self, request_id, writer)
        else:
            send(writer, b"", status=b"202 Accepted")


def result(request_id: object, value: dict) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": value}).encode()


def said(text: str) -> dict:
    return {"content": [{"type": "text", "text": text}], "resultType": "complete"}


def send(
    writer: asyncio.StreamWriter, body: bytes, *, kind: str = "application/json", status: bytes = b"200 OK", more: str = ""
) -> None:
    head = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    writer.write(b"HTTP/1.1 " + status + b"\r\n" + head.encode() + body)


async def forever(writer: asyncio.StreamWriter, kind: str, piece: bytes, pause_s: float = 0) -> None:
    """A body without end."""
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    while True:
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
        await asyncio.sleep(pause_s)


async def echo(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, result(request_id, said("hello")))


async def large_event(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    body = b"event: message\ndata: " + result(request_id, said("x" * 3 * 1024 * 1024)) + b"\n\n"
    send(writer, body, kind="text/event-stream")


async def large_body(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, result(request_id, said("x" * 3 * 1024 * 1024)))


async def endless_body(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    await forever(writer, "application/json", b" " * 65536)


async def endless_comments(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    await forever(writer, "text/event-stream", b": ping\n\n" * 4096)


async def endless_messages(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    message = b'data: {"jsonrpc":"2.0","method":"x"}\n\n'
    await forever(writer, "text/event-stream", message * 1000)


async def reopened(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, STREAM, kind="text/event-stream")


async def drip(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    await forever(writer, "application/json", b" ", 0.02)


async def silent(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def redirect(server: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"", status=b"307 Temporary Redirect", more=f"location: {server.target}\r\n")


async def redirect_here(server: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"", status=b"308 Permanent Redirect", more="location: /other\r\n")


def raw(text: bytes) -> Answer:
    """The result with `text` for its structured content."""

    async def answer(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
        send(writer, result(request_id, {**said(""), "structuredContent": "HERE"}).replace(b'"HERE"', text))

    return answer


async def not_json(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"{nothing")


async def not_json_event(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"data: {nothing\n\n", kind="text/event-stream")


async def zipped(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, gzip.compress(b" " * 50_000_000), more="content-encoding: gzip\r\n")


async def page(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"<h1>sorry</h1>", kind="text/html", status=b"503 Service Unavailable")


async def unauthorized(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"{}", status=b"401 Unauthorized")


async def accepted(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"", status=b"202 Accepted")


async def plain(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    send(writer, b"hello", kind="text/plain")


async def hang_up(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
    writer.close()


async def mismatch(_: HostileRemote, request_id: object, writer: asyncio.StreamWriter) -> None:
    error = {"jsonrpc": "2.0", "id": request_id, "error": {"code": -32020, "message": "header mismatch"}}
    send(writer, json.dumps(error).encode(), status=b"400 Bad Request")


Answer = Callable[[HostileRemote, object, asyncio.StreamWriter], Awaitable[None]]
ANSWERS: dict[str, Answer] = {
    "echo": echo, "large_event": large_event, "large_body": large_body, "endless_body": endless_body,
    "endless_comments": endless_comments, "endless_messages": endless_messages, "drip": drip, "silent": silent,
    "reopened": reopened,
    "redirect": redirect, "redirect_here": redirect_here, "nan": raw(b'{"x": NaN}'), "huge_number": raw(b'{"x": 1e400}'),
    "deep": raw(b'{"x":' * 5000 + b"1" + b"}" * 5000), "a_bit_deep": raw(b'{"x":' * 80 + b"1" + b"}" * 80),
    "surrogate": raw(rb'{"x": "\ud800"}'), "not_utf8": raw(b'{"x": "\xff"}'), "not_json": not_json,
    "not_json_event": not_json_event, "zipped": zipped, "page": page, "unauthorized": unauthorized, "accepted": accepted,
    "hang_up": hang_up, "plain": plain, "mismatch": mismatch,
}  # fmt: skip
