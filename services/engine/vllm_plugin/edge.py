"""The door of vLLM's API server: the routes that our services use, and no other.

vLLM has many more, some of which load adapters from any path, without asking who is there. So this is a list of what is
open; whatever is spelled otherwise (another case, a slash more, an encoding) is not on it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

OPEN = {"/health", "/version", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions", "/tokenize"}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClosedRoutes:
    """ASGI middleware, for vLLM's `--middleware`."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on what is open; answers 404 in OpenAI's shape to the rest, and refuses websockets."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            message = f"{scope['path']!r:.300} is not a route of this engine; it has {', '.join(sorted(OPEN))}."
            error = {"message": message, "type": "NotFoundError", "param": None, "code": 404}
            body = json.dumps({"error": error}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": body})
