from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDisconnect

from services.engine.vllm_plugin.edge import OPEN, ClosedRoutes


async def anything(request):
    return PlainTextResponse("vLLM")


async def anyone(websocket):
    await websocket.accept()


@pytest.fixture
def door():
    """An application that answers whatever it is asked, behind the middleware."""
    app = Starlette(routes=[Route("/{path:path}", anything, methods=["GET", "POST"]), WebSocketRoute("/v1/completions", anyone)])
    with TestClient(ClosedRoutes(app)) as client:
        yield client


@pytest.mark.parametrize("path", sorted(OPEN))
def test_what_our_services_use_is_open(door, path):
    assert door.get(path).text == "vLLM"
    assert door.post(path, json={}).text == "vLLM"


@pytest.mark.parametrize(
    "path",
    [
        "/adapters", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/invocations", "/detokenize", "/v1/embeddings", "/ping",
        "/v1/completions/", "//v1/completions", "/v1//completions", "/V1/completions", "/v1/completions/render", "/",
        "/v1/models/..%2Fload_lora_adapter", "/v1/%6Coad_lora_adapter", "/v1/completions%2F", "/metrics/", "/health;x",
    ],
)  # fmt: skip
def test_everything_else_is_closed_however_it_is_spelled(door, path):
    reply = door.post(path, json={"lora_name": "x", "lora_path": "/x"}, follow_redirects=False)
    assert reply.status_code == 404
    assert reply.json()["error"] | {"message": ""} == {"message": "", "type": "NotFoundError", "param": None, "code": 404}
    assert "is not a route of this engine" in reply.json()["error"]["message"]


def test_an_encoded_spelling_of_an_open_route_is_that_route(door):
    assert door.get("/%76%31/models").text == "vLLM"


def test_websockets_are_refused(door):
    with pytest.raises(WebSocketDisconnect), door.websocket_connect("/v1/completions"):
        pass
