"""How long a request may last, whoever it waits for."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from services.gateway.api import deadline
from tests.gateway.backends import HELLO, Backends, metric, whole_gateway

pytestmark = pytest.mark.anyio


class Talkative(Backends):
    """Streams more than the buffers on the way hold."""

    async def _chunks(self, usage: dict[str, int]) -> AsyncIterator[str]:
        delta = {"content": "x" * 50_000}
        for _ in range(400):
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': None}]})}\n\n"
        async for chunk in super()._chunks(usage):
            yield chunk


class SlowCounting(Backends):
    """Needs `count_s` to count tokens, and finds every message long."""

    count_s = 0.3

    async def answer(self, path: str, request: Request) -> Response:
        if path != "tokenize":
            return await super().answer(path, request)
        self.asked[path] = self.asked.get(path, 0) + 1
        await asyncio.sleep(self.count_s)
        return JSONResponse({"count": 1000 * len((await request.json())["messages"])})


LONG = [{"role": ("user", "assistant")[number % 2], "content": "x" * 600} for number in range(31)]
COUNTED = {
    "/v1/responses": {"model": "base", "input": LONG, "truncation": "auto"},
    "/v1/responses/compact": {"model": "base", "input": LONG},
    "/v1/responses/input_tokens": {"model": "base", "input": LONG},
    "/v1/messages/count_tokens": {"model": "base", "messages": LONG},
}


@pytest.mark.parametrize("path", COUNTED)
async def test_counting_tokens_has_no_other_deadline_than_the_request(path: str) -> None:
    backends = SlowCounting()
    backends.count_s = 0.7 if path.endswith("_tokens") else 0.3
    async with whole_gateway(backends, request_timeout_s=0.5) as client:
        reply = await client.post(path, json=COUNTED[path])
    assert reply.status_code == 504
    assert "request_timeout_s" in reply.text
    assert backends.asked["tokenize"] <= 2


async def test_counting_tokens_takes_a_place() -> None:
    async with whole_gateway(SlowCounting(), max_turns=1, max_queue=0) as client:
        asking = [client.post("/v1/messages/count_tokens", json=COUNTED["/v1/messages/count_tokens"]) for _ in range(3)]
        statuses = sorted(reply.status_code for reply in await asyncio.gather(*asking))
        refused = await metric(client, 'agentflux_refused_total{reason="full"}')
    assert (statuses, refused) == ([200, 503, 503], 2)


async def test_a_client_that_reads_nothing_holds_its_request_no_longer_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "LAST_WORDS_S", 0.5)
    loop, body = asyncio.get_running_loop(), json.dumps({**HELLO, "stream": True}).encode()
    async with whole_gateway(Talkative(), request_timeout_s=0.5) as client:
        place = urlsplit(str(client.base_url))
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.setblocking(False)
            await loop.sock_connect(silent, (place.hostname, place.port))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            await loop.sock_sendall(silent, head.encode() + body)
            inside = []
            # The look at the metrics is one, too.
            while not inside or (len(inside) < 200 and (max(inside) < 2 or inside[-1] > 1)):
                await asyncio.sleep(0.05)
                inside.append(await metric(client, "agentflux_inflight_requests"))
    assert max(inside) == 2
    assert inside[-1] == 1, "it is still held"
