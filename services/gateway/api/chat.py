"""The door for POST /v1/chat/completions, plain and streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from fastapi import APIRouter, Request, Response

from services.gateway.api.door import DirectRoute
from services.gateway.api.streams import DONE, KEEP_ALIVE, data_frame, event_stream, is_private, session_of
from services.gateway.api.turns import Turn, Turns
from services.gateway.events import Event
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
        return await (event_stream(turn, _Frames(request, turn)) if request.stream else _whole(request, turn))

    return routes


def _id(turn: Turn) -> str:
    return f"chatcmpl-{turn.record.id}"


async def _whole(request: ChatRequest, turn: Turn) -> Response:
    reply = Reply(request.model, _id(turn))
    await turn.whole(reply.add)
    return Response(as_json(reply.body()), media_type="application/json")


class _Frames:
    """Chunks of a chat completion, and `[DONE]`."""

    def __init__(self, request: ChatRequest, turn: Turn) -> None:
        self._reply = Reply(request.model, _id(turn), include_usage=request.include_usage)

    def opening(self) -> Iterable[bytes]:
        return ()

    def of(self, event: Event) -> Iterable[bytes]:
        return map(data_frame, self._reply.chunks(event))

    def silence(self) -> Iterable[bytes]:
        return (KEEP_ALIVE,)

    async def end(self) -> AsyncIterator[bytes]:
        for chunk in self._reply.last_chunks():
            yield data_frame(chunk)
        yield DONE

    def failure(self, error: AgentFluxError) -> Iterable[bytes]:
        return data_frame(error.envelope()), DONE
