"""Clients that mean harm, over raw sockets: each is answered or cut off within bounds, and nobody else notices."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.stack import Stack, running_stack

pytestmark = pytest.mark.anyio

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions", "/v1/feedback")


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(body_timeout_s=1, max_body_bytes=256 * 1024) as running:
        yield running


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as http:
        yield http
        reply = await http.post("/v1/chat/completions", json={"model": "base", "messages": [{"role": "user", "content": "hi"}]})
        assert reply.status_code == 200, "the others are served as ever"
        assert stack.engine.open == 0


async def raw(stack: Stack, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What the server answers to these bytes until it hangs up or has said enough."""
    place = urlsplit(stack.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)

    async def send() -> None:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)

    # It may answer before it has heard all.
    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(20):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        sending.cancel()
        writer.close()


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


async def test_a_body_that_trickles_in_is_cut_off(stack: Stack, client: httpx.AsyncClient) -> None:
    drops = [b"{"] * 40
    reply = await raw(stack, f"{HEAD}content-length: 4000\r\n\r\n".encode(), *drops, pause_s=0.05)
    assert status(reply) == 504
    assert b"connection: close" in reply


async def test_a_hundred_megabytes_are_not_read(stack: Stack, client: httpx.AsyncClient) -> None:
    reply = await raw(stack, f"{HEAD}content-length: {100 * 2**20}\r\n\r\n".encode(), b"x" * 300_000)
    assert status(reply) == 413


async def test_chunks_without_end_are_not_read(stack: Stack, client: httpx.AsyncClient) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    reply = await raw(stack, f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode(), *[chunk] * 8)
    assert status(reply) == 413


async def test_a_bomb_is_not_unpacked(client: httpx.AsyncClient) -> None:
    for path in PATHS:
        bomb = gzip.compress(bytes(80_000_000))
        reply = await client.post(path, content=bomb, headers={"content-encoding": "gzip", "content-type": "application/json"})
        assert reply.status_code == 413, path


@pytest.mark.parametrize("headers", [f"x-{'y' * 10}: {'z' * 200_000}\r\n", "".join(f"x-{i}: y\r\n" for i in range(50_000))])
async def test_headers_without_measure_are_refused(stack: Stack, client: httpx.AsyncClient, headers: str) -> None:
    reply = await raw(stack, f"{HEAD}{headers}content-length: 2\r\n\r\n{{}}".encode())
    assert reply == b"" or 400 <= status(reply) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\xfa",
        b'{"model": "base", "messages": "\xed\xa0\x80"}',
        b'{"model": "base", "messages": [], "temperature": NaN}',
        b'{"model": "base", "messages": [{"role": "user", "content": "hi"}], "temperature": Infinity}',
        b"[" * 5000 + b"]" * 5000,
        b'{"model": "base", "messages": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"model": "base", "messages": [{"role": "user", "content": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        b'{"model": "base", "max_tokens": ' + b"9" * 5000 + b"}",
    ],
    ids=range(8),
)
@pytest.mark.parametrize("path", PATHS)
async def test_what_is_no_request_is_a_clear_400(client: httpx.AsyncClient, path: str, content: bytes) -> None:
    reply = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]
    assert "detail" not in reply.json()


@pytest.mark.parametrize("path", PATHS[:3])
async def test_json_is_json_whatever_the_content_type_says(client: httpx.AsyncClient, path: str) -> None:
    said = b'"input": "hi"' if path == "/v1/responses" else b'"max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]'
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        reply = await client.post(path, content=b'{"model": "base", ' + said + b"}", headers={"content-type": kind})
        assert reply.status_code == 200, (kind, reply.text)


def nested(depth: int) -> str:
    return '{"type": "object", "properties": {"a": ' * depth + '{"type": "string"}' + "}}" * depth


@pytest.mark.parametrize("depth", [50, 300, 2000])
async def test_a_schema_nested_too_deep_never_fails_on_our_side(client: httpx.AsyncClient, depth: int) -> None:
    tool = {"type": "function", "function": {"name": "deep", "parameters": "HERE"}}
    body = {"model": "base", "messages": [{"role": "user", "content": "call deep"}], "tools": [tool]}
    content = json.dumps(body).replace('"HERE"', nested(depth))
    reply = await client.post("/v1/chat/completions", content=content.encode())
    assert reply.status_code in (200, 400), reply.text


async def test_calls_that_share_an_id_are_answered(client: httpx.AsyncClient) -> None:
    call = {"id": "same", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "look twice"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        *[{"role": "tool", "tool_call_id": "same", "content": "nothing"}] * 2,
    ]
    reply = await client.post("/v1/chat/completions", json={"model": "base", "messages": messages})
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "The result is nothing"


async def test_a_thousand_that_say_nothing_keep_nobody_out(stack: Stack, client: httpx.AsyncClient) -> None:
    place = urlsplit(stack.url)
    silent = [await asyncio.open_connection(place.hostname, place.port) for _ in range(300)]
    try:
        assert (await client.get("/v1/models")).status_code == 200
    finally:
        for _, writer in silent:
            writer.close()


async def test_clients_that_leave_stop_the_engine() -> None:
    """A hundred leave at any moment: in the vote, while arguments are written, in the middle of a stream."""
    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    async with running_stack(delay_s=0.05, word_s=0.02) as slow, httpx.AsyncClient(base_url=slow.url, timeout=30) as http:
        for number in range(100):
            asks: dict[str, Any] = {
                "model": "base",
                "messages": [{"role": "user", "content": "call look" if number % 2 else "a " * 90}],
            }
            body = {**asks, "stream": number % 3 == 0, **({"tools": [tool]} if number % 2 else {})}
            impatient = httpx.Timeout(30, read=0.002 + number % 10 * 0.004)
            with pytest.raises(httpx.ReadTimeout):
                async with http.stream("POST", "/v1/chat/completions", json=body, timeout=impatient) as reply:
                    await reply.aread()
        async with asyncio.timeout(10):
            while slow.engine.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
