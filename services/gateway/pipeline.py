"""One request, step by step: route, look back, select, answer or act."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped
from services.gateway.lookahead import LookAhead, last_called
from services.gateway.loops import LoopGuard, blocked_answer, conversation_of, guard, made_calls, new_call_id, own_standings
from services.gateway.requests import ChatRequest
from services.gateway.routing import PassThrough, ToolRoute, route
from services.gateway.toolsets import Catalogue
from services.shared.contracts.arguments import ArgumentGenerator, ArgumentsRequest
from services.shared.contracts.calls import CallMemory, Ladder, LookBack, Standing
from services.shared.contracts.engine import Engine
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.selection import Selection, SelectionRequest, ToolSelector
from services.shared.contracts.tools import JsonObject, ToolsetRef

log = structlog.get_logger()


@dataclass(frozen=True)
class Pipeline:
    """The services a turn passes through. Knows their Protocols, not what stands behind them."""

    engine: Engine
    selector: ToolSelector
    arguments: ArgumentGenerator
    memory: CallMemory
    catalogue: Catalogue
    ladder: Ladder
    look_ahead: LookAhead

    async def run(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """The events of one turn, in order; errors are raised where they happen.

        Closing the generator closes what it is waiting for, down to the engine.
        """
        match route(request):
            case PassThrough():
                steps = self._answer(request, request.messages)
            case ToolRoute() as tools:
                steps = self._decide(request, tools)
        with self.look_ahead.turn():
            async with aclosing(steps):
                async for event in steps:
                    yield event

    async def _decide(self, request: ChatRequest, tools: ToolRoute) -> AsyncGenerator[Event]:
        loops = await self._look_back(request)
        candidates = [name for name in tools.candidates if request.choice.forced or name not in loops.withdrawn]
        if loops.blocked or not (candidates or tools.may_answer):
            log.warning("loop stopped", withdrawn=sorted(loops.withdrawn), blocked=len(loops.blocked))
            await self._forget(request)
            yield Stopped(blocked_answer((loops.blocked or loops.repeated)[0]))
            return
        messages = [*request.messages, loops.note] if loops.note else request.messages
        toolset = self.catalogue.toolset_of(request.tools)
        selection = await self._select(request, toolset, messages, candidates, may_answer=tools.may_answer)
        yield Selected(selection, toolset.name if toolset else None)
        if selection.tool is None:
            async with aclosing(self._answer(request, messages)) as answer:
                async for event in answer:
                    yield event
            return
        call_id = new_call_id()
        yield CallOpened(call_id=call_id, tool=selection.tool)
        writing = self._arguments_request(request, toolset, messages, selection.tool, selection.release)
        written = await self.arguments.generate(writing)
        yield CallWritten(written)
        if written.finish_reason == "stop":
            self.look_ahead.called(writing, last_called(messages), _as_message(call_id, selection.tool, written.arguments))

    def _arguments_request(
        self, request: ChatRequest, toolset: ToolsetRef | None, messages: list[JsonObject], tool: str, release: int | None
    ) -> ArgumentsRequest:
        tools = request.tools
        if toolset:
            # Only the chosen tool's schema is enforced.
            tools = [self.catalogue.in_order(toolset, each) if each.name == tool else each for each in tools]
        return ArgumentsRequest(
            tool=tool,
            tools=tools,
            # Whoever voted on the base model gets its arguments from there, too, also when a release has appeared in between.
            toolset=toolset if release is not None else None,
            release=release,
            messages=messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
        )

    async def _look_back(self, request: ChatRequest) -> LoopGuard:
        """The ladder's demands: from the request's own history, and from what the call cache remembers beyond it."""
        calls = made_calls(request.messages)
        standings = own_standings(calls, self.ladder)
        conversation = conversation_of(request.messages, request.session, request.user)
        if calls and conversation:
            remembered = await self._remembered(LookBack(conversation=conversation, calls=calls))
            standings = [*remembered, *(own for own in standings if own.call_key not in {r.call_key for r in remembered})]
        return guard(standings)

    async def _remembered(self, look_back: LookBack) -> list[Standing]:
        try:
            return (await self.memory.look_back(look_back)).standings
        except AgentFluxError as error:
            log.warning("call cache left out", error=error.message)
            return []

    async def _select(
        self,
        request: ChatRequest,
        toolset: ToolsetRef | None,
        messages: list[JsonObject],
        candidates: list[str],
        *,
        may_answer: bool,
    ) -> Selection:
        selection = await self.selector.select(
            SelectionRequest(
                tools=request.tools,
                toolset=toolset,
                candidates=candidates,
                messages=messages,
                may_answer=may_answer,
                seed=request.seed,
            )
        )
        log.info(
            "selected",
            tool=selection.tool,
            margin=round(selection.margin, 4),
            adapter=selection.adapter,
            release=selection.release,
        )
        return selection

    async def _answer(self, request: ChatRequest, messages: list[JsonObject]) -> AsyncGenerator[Event]:
        """The base model answers in text; an answer ends the turn, so its calls are forgotten."""
        await self._forget(request)
        body = {**request.relayed, "model": self.catalogue.base_model, "messages": messages}
        if request.stream:
            async with aclosing(self.engine.stream_chat(body)) as chunks:
                async for chunk in chunks:
                    yield AnswerChunk(chunk)
        else:
            yield Answered(await self.engine.chat(body))

    async def _forget(self, request: ChatRequest) -> None:
        conversation = conversation_of(request.messages, request.session, request.user)
        if conversation is None:
            return
        try:
            await self.memory.clear(conversation)
        except AgentFluxError as error:
            log.warning("call cache not cleared", error=error.message)


def _as_message(call_id: str, tool: str, arguments: str) -> JsonObject:
    call = {"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
