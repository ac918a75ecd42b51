"""The door for Anthropic's POST /v1/messages, plain and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable

import structlog
from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.api.door import DirectRoute
from services.gateway.api.models import ANTHROPIC
from services.gateway.api.streams import data_frame, event_stream, is_private, session_of
from services.gateway.api.turns import Turn, Turns
from services.gateway.events import Event
from services.gateway.toolsets import Catalogue
from services.gateway.wire.encoding import as_json
from services.gateway.wire.messages_replies import MessageReply, error_body
from services.gateway.wire.messages_requests import CountBody, MessagesBody, understood_messages
from services.gateway.wire.requests import ChatRequest, UnknownTools
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.tools import JsonObject

log = structlog.get_logger()

PATH = "/v1/messages"
PING: JsonObject = {"type": "ping"}


def router(turns: Turns, catalogue: Catalogue, *, unknown_tools: UnknownTools) -> APIRouter:
    """The routes; `turns` runs them."""
    routes = APIRouter(route_class=DirectRoute)

    @routes.post(PATH)
    async def messages(body: MessagesBody, http: Request) -> Response:
        request = understood_messages(
            body, default_tools=catalogue.default_tools(body.model), session=session_of(http), unknown_tools=unknown_tools
        )
        turn = turns.start(request, private=is_private(http, body))
        return await (event_stream(turn, _Frames(request, turn)) if request.stream else _whole(request, turn))

    @routes.post(f"{PATH}/count_tokens")
    async def count_tokens(body: CountBody, http: Request) -> Response:
        request = understood_messages(
            body, default_tools=catalogue.default_tools(body.model), session=session_of(http), unknown_tools=unknown_tools
        )
        return Response(as_json({"input_tokens": await turns.count_tokens(request)}), media_type="application/json")

    return routes


async def _whole(request: ChatRequest, turn: Turn) -> Response:
    reply = MessageReply(request.model, turn.record.id)
    await turn.whole(reply.add)
    return Response(as_json(reply.body()), media_type="application/json")


class _Frames:
    """Anthropic's events, each with its name."""

    def __init__(self, request: ChatRequest, turn: Turn) -> None:
        self._reply = MessageReply(request.model, turn.record.id)

    def opening(self) -> Iterable[bytes]:
        return ()

    def of(self, event: Event) -> Iterable[bytes]:
        return map(_frame, self._reply.events(event))

    def silence(self) -> Iterable[bytes]:
        return map(_frame, [*self._reply.opening(), PING])

    async def end(self) -> AsyncIterator[bytes]:
        for told in self._reply.last_events():
            yield _frame(told)

    def failure(self, error: AgentFluxError) -> Iterable[bytes]:
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        return (_frame(error_body(error.envelope(), error.status, request_id)),)


def _frame(told: JsonObject) -> bytes:
    return data_frame(told, event=told["type"])


class AnthropicErrors:
    """ASGI middleware for the outside of everything: errors of this door, and those of others that Anthropic's clients see, in
    Anthropic's shape, whoever raised them, and the request's id under Anthropic's name for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"].startswith(PATH) or _is_anthropics(scope)):
            send = _Rewording(send)
        await self.app(scope, receive, send)


def _is_anthropics(scope: Scope) -> bool:
    return any(name == ANTHROPIC.encode() for name, _ in scope["headers"])


class _Rewording:
    """Sends a reply on; the body of an error, which is short, in other words."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            ids = [value for name, value in message["headers"] if name == b"x-request-id"]
            message = {**message, "headers": [*message["headers"], *((b"request-id", value) for value in ids)]}
            if message["status"] >= 400:
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_error(self._start, self._body)
            return
        await self._send(message)

    async def _send_error(self, start: Message, body: bytes) -> None:
        request_id = dict(start["headers"]).get(b"request-id", b"").decode("latin-1")
        try:
            body = as_json(error_body(json.loads(body), start["status"], request_id))
        except (ValueError, LookupError, TypeError):
            log.warning("an error that is none of ours", status=start["status"], body=body[:200])
        kept = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        await self._send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})
