"""One request, step by step: route, look back, select, answer or act."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from services.gateway.events import CallOpened, CallWritten, Event, Outside, Selected, Stopped, Withheld
from services.gateway.failures import failing
from services.gateway.lookahead import LookAhead, last_called
from services.gateway.loops import (
    LoopGuard,
    blocked_answer,
    conversation_of,
    failed_answer,
    guard,
    made_calls,
    new_call_id,
    own_standings,
    since_the_user_spoke,
)
from services.gateway.routing import PassThrough, ToolRoute, route
from services.gateway.toolsets import Catalogue
from services.gateway.upstreams import NO_TOOLS, NOTHING_LEAVES, OTHER, Upstreams
from services.gateway.wire.requests import CONTINUING, ChatRequest
from services.shared.contracts.arguments import ArgumentGenerator, ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import CallMemory, Ladder, LookBack, MadeCall, Standing
from services.shared.contracts.engine import Engine
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.selection import Selection, SelectionRequest, ToolSelector
from services.shared.contracts.tools import JsonObject, ToolsetRef

log = structlog.get_logger()

PENDING = "Running. Its result comes later; meanwhile call what does not depend on it, or end here."


@dataclass(frozen=True)
class _Turn:
    """What is voted on: the request, whose toolset it is, the conversation as far as it is, and who may win."""

    request: ChatRequest
    toolset: ToolsetRef | None
    messages: list[JsonObject]
    candidates: list[str]
    may_answer: bool
    loops: LoopGuard


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
    upstreams: Upstreams = NOTHING_LEAVES
    # After how many equal failures a call is not made again.
    same_failures: int = 2
    # The most calls that one turn may make.
    calls: int = 8

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

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the conversation and its tools, as the base model reads them."""
        tools = [tool.openai() for tool in request.tools]
        continuing = {name: value for name, value in request.relayed.items() if name in CONTINUING}
        body: JsonObject = {"model": self.catalogue.base_model, "messages": request.messages, **continuing}
        return await self.engine.count_tokens({**body, "tools": tools} if tools else body)

    async def _decide(self, request: ChatRequest, tools: ToolRoute) -> AsyncGenerator[Event]:
        loops = await self._look_back(request)
        candidates = [name for name in tools.candidates if request.choice.forced or name not in loops.withdrawn]
        if loops.blocked or not (candidates or tools.may_answer):
            log.warning("loop stopped", withdrawn=sorted(loops.withdrawn), blocked=len(loops.blocked))
            await self._forget(request)
            yield Stopped(blocked_answer((loops.blocked or loops.repeated)[0]))
            return
        messages = [*request.messages, loops.note] if loops.note else request.messages
        turn = _Turn(request, self.catalogue.toolset_of(request.tools), messages, candidates, tools.may_answer, loops)
        selection, told, written = await self._first(turn)
        for event in told:
            yield event
        if selection is None:
            return
        if selection.tool is None:
            async with aclosing(self._answer(request, messages)) as answer:
                async for event in answer:
                    yield event
            return
        call_id = new_call_id()
        yield CallOpened(call_id=call_id, tool=selection.tool)
        writing = self._writing(turn, selection.tool, selection.release)
        written = written or await self.arguments.generate(writing)
        yield CallWritten(written)
        if written.finish_reason != "stop":
            return
        first = _made(call_id, selection.tool, written)
        if not request.parallel or request.choice.forced:
            self.look_ahead.called(writing, last_called(messages), _as_message(first))
            return
        async with aclosing(self._decide_more(turn, [first])) as more:
            async for event in more:
                yield event

    async def _first(self, turn: _Turn) -> tuple[Selection | None, list[Event], GeneratedArguments | None]:
        """The first decision of the turn, what there is to tell, and the arguments where they had to be seen before.

        A call that failed alike before is not made again: its tool leaves the vote, and the others are asked for. No decision
        is left where text is no answer.
        """
        events: list[Event] = []
        while True:
            selection, told = await self._select(turn)
            tool = selection.tool
            if tool not in turn.candidates or turn.request.choice.forced or not turn.loops.has_failed(tool):
                return selection, [*told, *events], None
            written = await self.arguments.generate(self._writing(turn, tool, selection.release))
            if not turn.loops.forbids(tool, written.arguments):
                return selection, [*told, *events], written
            log.warning("call withheld", tool=tool)
            events += [*(event for event in told if isinstance(event, Outside)), Withheld(selection.usage + written.usage)]
            turn = replace(turn, candidates=[name for name in turn.candidates if name != tool])
            if not (turn.candidates or turn.may_answer):
                await self._forget(turn.request)
                return None, [*events, Stopped(failed_answer(tool))], None

    async def _decide_more(self, turn: _Turn, made: list[MadeCall]) -> AsyncGenerator[Event]:
        """Further calls of the same turn, until the vote says that no other one can be made yet.

        The first call stands whatever happens here: a call that was made already, and any error, end the turn as it is.
        """
        while len(made) < self.calls:
            on = replace(turn, messages=[*turn.messages, *_pending(made)], may_answer=True)
            try:
                selection, told = await self._select(on)
                for event in told:
                    yield event
                if selection.tool is None:
                    return
                written = await self.arguments.generate(self._writing(on, selection.tool, selection.release))
            except AgentFluxError as error:
                log.warning("no further call", made=len(made), error=error.message)
                return
            call = _made(new_call_id(), selection.tool, written)
            if written.finish_reason != "stop" or call.call_key in {other.call_key for other in made}:
                return
            if turn.loops.forbids(call.tool, call.arguments):
                return
            made.append(call)
            yield CallOpened(call_id=call.call_id, tool=call.tool)
            yield CallWritten(written)

    def _writing(self, turn: _Turn, tool: str, release: int | None) -> ArgumentsRequest:
        tools, request = turn.request.tools, turn.request
        if toolset := turn.toolset:
            # Only the chosen tool's schema is enforced.
            tools = [self.catalogue.in_order(toolset, each) if each.name == tool else each for each in tools]
        return ArgumentsRequest(
            tool=tool,
            tools=tools,
            # Whoever voted on the base model gets its arguments from there, too, also when a release has appeared in between.
            toolset=turn.toolset if release is not None else None,
            release=release,
            messages=turn.messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
        )

    async def _look_back(self, request: ChatRequest) -> LoopGuard:
        """The ladder's demands: from the request's own history, and from what the call cache remembers beyond it."""
        calls = made_calls(request.messages)
        standings = own_standings(calls, self.ladder)
        conversation = conversation_of(request.messages, request.session, request.user, request.sender.caller)
        if calls and conversation:
            remembered = await self._remembered(LookBack(conversation=conversation, calls=calls))
            standings = [*remembered, *(own for own in standings if own.call_key not in {r.call_key for r in remembered})]
        failed = failing(made_calls(since_the_user_spoke(request.messages)), self.same_failures) if calls else {}
        return guard(standings, failed)

    async def _remembered(self, look_back: LookBack) -> list[Standing]:
        try:
            return (await self.memory.look_back(look_back)).standings
        except AgentFluxError as error:
            log.warning("call cache left out", error=error.message)
            return []

    async def _select(self, turn: _Turn) -> tuple[Selection, list[Event]]:
        """The decision, and what there is to tell about it."""
        asking = SelectionRequest(
            tools=turn.request.tools,
            toolset=turn.toolset,
            candidates=turn.candidates,
            messages=turn.messages,
            may_answer=turn.may_answer,
            seed=turn.request.seed,
        )
        local = await self.selector.select(asking)
        selection, outside = await self.upstreams.second_opinion(turn.request.sender, local, asking)
        log.info(
            "selected",
            tool=selection.tool,
            margin=round(selection.margin, 4),
            adapter=selection.adapter,
            release=selection.release,
        )
        selected = Selected(selection, turn.toolset.name if turn.toolset else None)
        return selection, [outside, selected] if outside else [selected]

    async def _answer(self, request: ChatRequest, messages: list[JsonObject]) -> AsyncGenerator[Event]:
        """The base model answers in text; an answer ends the turn, so its calls are forgotten."""
        await self._forget(request)
        body = {**request.relayed, "model": self.catalogue.base_model, "messages": messages}
        toolset = self.catalogue.toolset_of(request.tools)
        kind = toolset.name if toolset else OTHER if request.tools else NO_TOOLS
        answer = self.upstreams.answer(request.sender, kind, body, stream=request.stream, engine=self.engine)
        async with aclosing(answer) as events:
            async for event in events:
                yield event

    async def _forget(self, request: ChatRequest) -> None:
        conversation = conversation_of(request.messages, request.session, request.user, request.sender.caller)
        if conversation is None:
            return
        try:
            await self.memory.clear(conversation)
        except AgentFluxError as error:
            log.warning("call cache not cleared", error=error.message)


def _made(call_id: str, tool: str, written: GeneratedArguments) -> MadeCall:
    return MadeCall(call_id=call_id, tool=tool, arguments=written.arguments, result=PENDING)


def _pending(made: Sequence[MadeCall]) -> list[JsonObject]:
    """The turn's calls so far as history: results stand in that say nothing, for every prompt that a model has learned from
    goes on after a result."""
    return [
        message
        for call in made
        for message in (
            _as_message(call),
            {"role": "tool", "tool_call_id": call.call_id, "content": call.result},
        )
    ]


def _as_message(made: MadeCall) -> JsonObject:
    call = {"id": made.call_id, "type": "function", "function": {"name": made.tool, "arguments": made.arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
