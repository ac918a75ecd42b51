"""The door for POST /v1/chat/completions, plain and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from services.gateway.api.turns import Turn, Turns
from services.gateway.events import CallWritten, Selected
from services.gateway.replies import Reply
from services.gateway.requests import ChatBody, ChatRequest, understood
from services.gateway.toolsets import Catalogue
from services.shared.contracts.errors import AgentFluxError

# Headers by which a client names its session, the first present one counts.
SESSION_HEADERS = ("x-session-id", "session-id", "x-session-affinity")


def router(turns: Turns, catalogue: Catalogue) -> APIRouter:
    """The route; `turns` runs them."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, http: Request) -> Response:
        session = next((http.headers[name] for name in SESSION_HEADERS if name in http.headers), None)
        request = understood(body, default_tools=catalogue.default_tools(body.model), session=session)
        turn = turns.start(request)
        return await (_streamed if request.stream else _whole)(request, turn)

    return routes


async def _whole(request: ChatRequest, turn: Turn) -> Response:
    reply = Reply(request.model)
    headers: dict[str, str] = {}
    async with turn:
        async for event in turn.events():
            if isinstance(event, Selected):
                headers |= selection_headers(event)
            elif isinstance(event, CallWritten):
                headers |= arguments_headers(event)
            reply.add(event)
    return JSONResponse(reply.body(), headers=headers)


async def _streamed(request: ChatRequest, turn: Turn) -> Response:
    """The status line waits for the first event, or for as long as clients bear silence, so that early errors get their own
    status."""
    try:
        first = await turn.peek()
    except BaseException:
        await turn.aclose()
        raise
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    if isinstance(first, Selected):
        headers |= selection_headers(first)
    return EventStream(_frames(request, turn), turn, headers)


class EventStream(Response):
    """Server-sent events of a turn, which ends with them: at once when the client leaves, not when they are collected."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[str], turn: Turn, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._frames = frames
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turn, aclosing(self._frames) as frames:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _frames(request: ChatRequest, turn: Turn) -> AsyncGenerator[str]:
    reply = Reply(request.model, include_usage=request.include_usage)
    try:
        async for event in turn.events_or_silence():
            if event is None:
                yield ": keep-alive\n\n"
                continue
            for chunk in reply.chunks(event):
                yield _frame(chunk)
        for chunk in reply.last_chunks():
            yield _frame(chunk)
    except AgentFluxError as error:
        yield _frame(error.envelope())
    yield "data: [DONE]\n\n"


def _frame(payload: object) -> str:
    return f"data: {json.dumps(payload, ensure_ascii=False, separators=(',', ':'))}\n\n"


def selection_headers(event: Selected) -> dict[str, str]:
    """How the turn was decided, for whoever wants to know: the five likeliest labels, margin, strategy, adapter."""
    selection = event.selection
    likeliest = sorted(selection.probabilities.items(), key=lambda item: -item[1])[:5]
    told = {
        "tool": selection.tool,
        "toolset": event.toolset,
        "strategy": selection.strategy,
        "margin": round(selection.margin, 4),
        "valid_mass": round(selection.valid_mass, 4),
        "adapter": selection.adapter,
        "release": selection.release,
        "probabilities": {label: round(probability, 4) for label, probability in likeliest},
    }
    # Headers are ASCII; json escapes the rest.
    return {"x-agentflux-selection": json.dumps(told)}


def arguments_headers(event: CallWritten) -> dict[str, str]:
    """Who wrote the arguments, and at which try."""
    written = event.generated
    return {
        "x-agentflux-arguments": json.dumps(
            {"adapter": written.adapter, "release": written.release, "attempts": written.attempts}
        )
    }
