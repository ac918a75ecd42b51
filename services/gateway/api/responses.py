"""The door for the Responses API: POST /v1/responses, plain and streamed, and the stored responses behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from services.gateway.api.door import DirectRoute
from services.gateway.api.streams import KEEP_ALIVE, data_frame, event_stream, is_private, session_of
from services.gateway.api.turns import Turn, Turns
from services.gateway.events import Event
from services.gateway.records.stored import History, Record, StoredResponses
from services.gateway.toolsets import Catalogue
from services.gateway.truncation import REPLY_SHARE, fitted
from services.gateway.wire.compaction import CompactionReply, asking, compacted, is_triggered
from services.gateway.wire.encoding import as_json
from services.gateway.wire.requests import ChatRequest, UnknownTools
from services.gateway.wire.responses_items import references, with_ids
from services.gateway.wire.responses_replies import ResponseReply
from services.gateway.wire.responses_requests import InputTokensBody, ResponsesBody, ResponsesRequest, understood_response
from services.shared.contracts.errors import AgentFluxError, InvalidRequest
from services.shared.contracts.tools import JsonObject

Keep = Callable[[JsonObject], Awaitable[None]]


def router(
    turns: Turns, catalogue: Catalogue, stored: StoredResponses, *, strict_fields: bool, unknown_tools: UnknownTools
) -> APIRouter:
    """The routes; `turns` runs them, `stored` keeps what they gave."""
    routes, creating = APIRouter(), APIRouter(route_class=DirectRoute)

    async def understood(body: ResponsesBody, http: Request) -> ResponsesRequest:
        caller, previous, wanted = caller_of(http), body.previous_response_id, references(body.input)
        return understood_response(
            body,
            history=await stored.history(caller, previous) if previous else History(),
            referenced=await stored.items(caller, wanted) if wanted else {},
            default_tools=catalogue.default_tools(body.model),
            session=session_of(http),
            strict_fields=strict_fields,
            unknown_tools=unknown_tools,
        )

    async def summarising(chat: ChatRequest) -> ChatRequest:
        # Whoever asks for a summary is short of room.
        context = await turns.pipeline.engine.context_length()
        asked = asking(chat, max_tokens=max(1, context // REPLY_SHARE))
        return await fitted(asked, context=context, count=turns.count_tokens)

    @creating.post("/v1/responses")
    async def create(body: ResponsesBody, http: Request) -> Response:
        compacting = is_triggered(body.input)
        request = await understood(body.model_copy(update={"input": body.input[:-1]}) if compacting else body, http)
        chat = request.chat
        if compacting:
            chat = await summarising(chat)
        elif body.truncation == "auto":
            chat = await fitted(chat, context=await turns.pipeline.engine.context_length(), count=turns.count_tokens)
        turn = turns.start(chat, private=_may_not_leave(http, body))
        reply = (CompactionReply if compacting else ResponseReply)(request, f"resp_{turn.record.id}")
        keep = partial(_keep, stored, caller_of(http), request)
        return await (event_stream(turn, _Frames(reply, keep)) if request.chat.stream else _whole(reply, keep, turn))

    @creating.post("/v1/responses/input_tokens")
    async def input_tokens(body: InputTokensBody, http: Request) -> Response:
        request = await understood(body.model_copy(update={"model": body.model or catalogue.base_model}), http)
        return _json({"object": "response.input_tokens", "input_tokens": await turns.count_tokens(request.chat)})

    @creating.post("/v1/responses/compact")
    async def compact(body: ResponsesBody, http: Request) -> Response:
        request = await understood(body, http)
        turn = turns.start(await summarising(request.chat), private=_may_not_leave(http, body))
        reply = CompactionReply(request, f"resp_{turn.record.id}")
        await _written(reply, turn)
        return _json(compacted([*request.history.items, *request.input], reply.response))

    @routes.get("/v1/responses/{response_id}")
    async def retrieve(response_id: str, http: Request, stream: bool = False) -> Response:
        if stream:
            raise InvalidRequest("only a response in the making can be streamed, and this one is done", param="stream")
        return _json((await stored.get(caller_of(http), response_id)).response)

    @routes.delete("/v1/responses/{response_id}")
    async def delete(response_id: str, http: Request) -> Response:
        await stored.delete(caller_of(http), response_id)
        return _json({"id": response_id, "object": "response", "deleted": True})

    @routes.post("/v1/responses/{response_id}/cancel")
    async def cancel(response_id: str, http: Request) -> Response:
        await stored.get(caller_of(http), response_id)
        raise InvalidRequest(
            "only a response made with `background` can be cancelled, and this one is done; one in the making ends when its "
            "client closes the connection",
            param="response_id",
        )

    @routes.get("/v1/responses/{response_id}/input_items")
    async def input_items(
        response_id: str,
        http: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        record = await stored.get(caller_of(http), response_id)
        return _json(_page(record.input, after=after, limit=limit, order=order))

    routes.include_router(creating)
    return routes


def caller_of(http: Request) -> str:
    """Whose request it is; without API keys all callers are one."""
    caller = http.scope.get("state", {}).get("caller")
    return caller.name if caller else ""


def _may_not_leave(http: Request, body: ResponsesBody) -> bool:
    # What is stored may be from a request that was marked.
    return is_private(http, body) or bool(body.previous_response_id or references(body.input))


async def _keep(stored: StoredResponses, caller: str, request: ResponsesRequest, response: JsonObject) -> None:
    """Stores a response, before its caller can ask for it; where it was to be and cannot be, its `store` says so."""
    if request.store:
        items, history = with_ids(request.input, response["id"]), request.history
        record = Record(response=response, input=items, chain=history.chain, bytes_before=history.bytes)
        response["store"] = await stored.keep(caller, record)


async def _whole(reply: ResponseReply, keep: Keep, turn: Turn) -> Response:
    await _written(reply, turn)
    await keep(reply.response)
    return _json(reply.response)


async def _written(reply: ResponseReply, turn: Turn) -> None:
    await turn.whole(lambda event: [*reply.events(event)])
    for _ in reply.closing():
        pass


class _Frames:
    """The events of a response, each with its name; the last one when the response is kept."""

    def __init__(self, reply: ResponseReply, keep: Keep) -> None:
        self._reply = reply
        self._keep = keep

    def opening(self) -> Iterable[bytes]:
        return map(_frame, self._reply.opening())

    def of(self, event: Event) -> Iterable[bytes]:
        return map(_frame, self._reply.events(event))

    def silence(self) -> Iterable[bytes]:
        return (KEEP_ALIVE,)

    async def end(self) -> AsyncIterator[bytes]:
        for closing in self._reply.closing():
            yield _frame(closing)
        await self._keep(self._reply.response)
        yield _frame(self._reply.last())

    def failure(self, error: AgentFluxError) -> Iterable[bytes]:
        return map(_frame, self._reply.failing(error))


def _frame(event: JsonObject) -> bytes:
    return data_frame(event, event=event["type"])


def _page(items: list[JsonObject], *, after: str | None, limit: int, order: str) -> JsonObject:
    """One page of a list, as OpenAI's list objects have it."""
    ordered = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise InvalidRequest(f"after is {after!r:.100}, which is no item of this response's input", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    data = ordered[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(ordered),
    }


def _json(content: JsonObject) -> Response:
    return Response(as_json(content), media_type="application/json")
