"""Compressed request bodies, over a real server."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import brotli
import httpx
import pytest
from fastapi import FastAPI, Request

from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
LIMIT = 64 * 1024
BODY = json.dumps({"text": "ä" * 1000}).encode()
PACKED = {"gzip": gzip.compress(BODY), "x-gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY), "br": brotli.compress(BODY)}


async def sent(content: bytes, encoding: str) -> httpx.Response:
    """The reply of a server that gives back the body it understood."""
    app = FastAPI()
    install_edge(app, ServiceSettings(max_body_bytes=LIMIT))

    @app.post("/echo")
    async def echo(request: Request) -> Any:
        return await request.json()

    async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
        headers = {"content-encoding": encoding, "content-type": "application/json"}
        return await client.post("/echo", content=content, headers=headers)


@pytest.mark.parametrize("encoding", PACKED)
async def test_a_packed_body_is_understood(encoding: str) -> None:
    reply = await sent(PACKED[encoding], encoding)
    assert reply.json() == json.loads(BODY)


async def test_encodings_are_undone_from_right_to_left() -> None:
    assert (await sent(gzip.compress(brotli.compress(BODY)), "br, gzip")).json() == json.loads(BODY)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_small_body_cannot_become_a_large_one(encoding: str) -> None:
    zeros = bytes(50_000_000)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda raw: brotli.compress(raw, quality=1)}[encoding](zeros)
    assert len(packed) < LIMIT
    reply = await sent(packed, encoding)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [*((PACKED[name][:-9], name) for name in ("gzip", "deflate", "br")), (b"plain", "gzip"), (b"plain", "br"), (BODY, "zstd")],
)
async def test_a_body_that_is_not_what_it_says_is_a_400(content: bytes, encoding: str) -> None:
    reply = await sent(content, encoding)
    assert reply.status_code == 400
    assert encoding in reply.json()["error"]["message"]
