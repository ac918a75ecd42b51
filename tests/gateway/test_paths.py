"""Paths as people type them."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from services.gateway.api.paths import Paths
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from tests.shared.serving import served

pytestmark = pytest.mark.anyio


async def asked(method: str, path: str) -> httpx.Response:
    app = FastAPI()
    install_edge(app, ServiceSettings())

    @app.get("/v1/models")
    async def models() -> dict[str, str]:
        return {"object": "list"}

    @app.post("/v1/chat/completions")
    async def chat() -> dict[str, str]:
        return {"object": "chat.completion"}

    app.add_middleware(Paths)
    async with served(app) as url, httpx.AsyncClient() as client:
        return await client.request(method, url + path)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "//v1//models", "/models", "//models", "/models/"])
async def test_a_base_url_may_be_typed_in_any_way(path: str) -> None:
    assert (await asked("GET", path)).json() == {"object": "list"}


async def test_chat_needs_no_version_either() -> None:
    assert (await asked("POST", "/chat/completions/")).json() == {"object": "chat.completion"}


async def test_head_is_a_get_without_its_body() -> None:
    reply = await asked("HEAD", "/v1/models")
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("PUT", "/models", 405), ("GET", "/model", 404), ("OPTIONS", "/models", 405)]
)
async def test_what_is_not_there_has_an_error_object(method: str, path: str, status: int) -> None:
    reply = await asked(method, path)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    if status == 405:
        assert reply.headers["allow"]
