"""The door for POST /v1/chat/completions, plain and streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request, Response

from services.gateway.api.door import DirectRoute
from services.gateway.api.streams import KEEP_ALIVE, data_frame, event_stream, is_private, session_of
from services.gateway.api.turns import Turn, Turns
from services.gateway.toolsets import Catalogue
from services.gateway.wire.encoding import as_json
from services.gateway.wire.replies import Reply
from services.gateway.wire.requests import ChatBody, ChatRequest, UnknownTools, understood
from services.shared.contracts.errors import AgentFluxError


def router(
    turns: Turns, catalogue: Catalogue, *, strict_fields: bool = False, unknown_tools: UnknownTools = "ignore"
) -> APIRouter:
    """The route; `turns` runs them, and the settings of these names say what is refused."""
    routes = APIRouter(route_class=DirectRoute)

    @routes.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, http: Request) -> Response:
        request = understood(
            body,
            default_tools=catalogue.default_tools(body.model),
            session=session_of(http),
            strict_fields=strict_fields,
            unknown_tools=unknown_tools,
        )
        turn = turns.start(request, private=is_private(http, body))
        return await (event_stream(turn, _frames(request, turn)) if request.stream else _whole(request, turn))

    return routes


def _id(turn: Turn) -> str:
    return f"chatcmpl-{turn.record.id}"


async def _whole(request: ChatRequest, turn: Turn) -> Response:
    reply = Reply(request.model, _id(turn))
    await turn.whole(reply.add)
    return Response(as_json(reply.body()), media_type="application/json")


async def _frames(request: ChatRequest, turn: Turn) -> AsyncGenerator[bytes]:
    reply = Reply(request.model, _id(turn), include_usage=request.include_usage)
    try:
        async for event in turn.events_or_silence():
            if event is None:
                yield KEEP_ALIVE
                continue
            for chunk in reply.chunks(event):
                yield data_frame(chunk)
        for chunk in reply.last_chunks():
            yield data_frame(chunk)
    except AgentFluxError as error:
        yield data_frame(error.envelope())
    yield b"data: [DONE]\n\n"
