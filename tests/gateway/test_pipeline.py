"""The story of one request, with stand-ins for the services it passes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.gateway.events import Answered, CallOpened, CallWritten, Event, Selected, Stopped, Withheld
from services.gateway.lookahead import LookAhead
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue, Toolset
from services.gateway.wire.requests import ChatBody, Sender, understood
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import Ladder, Standing, Standings
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.selection import SelectionRequest
from services.shared.contracts.tools import JsonObject, tools_digest
from services.shared.contracts.usage import Usage
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine, tool
from tests.gateway.test_loops import READ, history

pytestmark = pytest.mark.anyio
TOOLS = [tool("read_file", path={"type": "string"}), tool("list_directory")]


class World:
    """A pipeline with its stand-ins at hand."""

    def __init__(self, choice: str | None = "read_file", memory: FakeMemory | None = None) -> None:
        self.engine, self.selector, self.writer = ScriptedEngine(), FakeSelector(lambda _: choice), FakeWriter()
        self.memory = memory or FakeMemory()
        catalogue = Catalogue("base", [Toolset("files", TOOLS, tools_digest(TOOLS))])
        self.pipeline = Pipeline(
            self.engine, self.selector, self.writer, self.memory, catalogue, Ladder(), LookAhead(self.writer, adapters=0)
        )

    async def run(self, messages: list[JsonObject] | None = None, session: str | None = None, **fields: Any) -> list[Event]:
        body = {"model": "base", "messages": messages or [{"role": "user", "content": "hi"}], **fields}
        request = understood(ChatBody.model_validate(body), default_tools=[], session=session)
        return [event async for event in self.pipeline.run(request)]


OPENAI_TOOLS = [t.openai() for t in TOOLS]


async def test_a_turn_selects_a_tool_and_then_writes_its_arguments() -> None:
    world = World()
    selected, opened, written = await world.run(tools=OPENAI_TOOLS)
    assert isinstance(selected, Selected)
    assert selected.toolset == "files"
    assert isinstance(opened, CallOpened)
    assert (opened.tool, opened.call_id[:5]) == ("read_file", "call_")
    assert isinstance(written, CallWritten)
    assert world.engine.chats == []


async def test_both_stages_see_the_same_tools_and_messages() -> None:
    world = World()
    await world.run(tools=OPENAI_TOOLS)
    assert world.selector.requests[0].tools == world.writer.requests[0].tools
    assert world.selector.requests[0].messages == world.writer.requests[0].messages


async def test_when_the_answer_wins_the_base_model_answers_without_tools() -> None:
    world = World(choice=None)
    events = await world.run(tools=OPENAI_TOOLS, temperature=0.5)
    assert isinstance(events[-1], Answered)
    assert world.engine.chats[0]["temperature"] == 0.5
    assert "tools" not in world.engine.chats[0]


async def test_call_ids_are_unique() -> None:
    world = World()
    opened = [event for _ in range(50) for event in await world.run(tools=OPENAI_TOOLS) if isinstance(event, CallOpened)]
    assert len({event.call_id for event in opened}) == 50
    assert all(len(event.call_id) <= 40 for event in opened)


async def test_three_identical_calls_are_pointed_out_to_the_model() -> None:
    world = World()
    await world.run(history(*[READ] * 3), tools=OPENAI_TOOLS)
    assert "called 3 times" in world.selector.requests[0].messages[-1]["content"]


async def test_after_five_the_tool_leaves_the_vote_but_not_the_prompt() -> None:
    world = World(choice="list_directory")
    await world.run(history(*[READ] * 5), tools=OPENAI_TOOLS)
    assert world.selector.requests[0].candidates == ["list_directory"]
    assert len(world.selector.requests[0].tools) == 2


async def test_after_ten_the_turn_ends_with_an_answer_that_says_so() -> None:
    world = World()
    (event,) = await world.run(history(*[READ] * 10), session="s", tools=OPENAI_TOOLS)
    assert isinstance(event, Stopped)
    assert world.memory.cleared, "an answer, whoever gives it, ends the turn"
    assert "read_file was called 10 times" in event.text


async def test_when_no_candidate_is_left_and_a_tool_is_required_the_turn_stops() -> None:
    world = World()
    (event,) = await world.run(history(*[READ] * 5), tools=OPENAI_TOOLS[:1], tool_choice="required")
    assert isinstance(event, Stopped)


async def test_a_tool_chosen_by_name_is_called_until_it_is_blocked() -> None:
    named = {"type": "function", "function": {"name": "read_file"}}
    events = await World().run(history(*[READ] * 6), tools=OPENAI_TOOLS, tool_choice=named)
    assert isinstance(events[-1], CallWritten)


async def test_what_the_call_cache_remembers_counts_too() -> None:
    standing = Standing(tool="read_file", call_key="k", repeats=7, step="withdraw")
    world = World(choice="list_directory", memory=FakeMemory(Standings(standings=[standing])))
    await world.run(history(READ), session="s", tools=OPENAI_TOOLS)
    assert world.selector.requests[0].candidates == ["list_directory"]


async def test_without_the_call_cache_the_request_goes_on_with_its_own_history() -> None:
    world = World(choice="list_directory", memory=FakeMemory(error=Unavailable("callcache is down")))
    events = await world.run(history(*[READ] * 5), session="s", tools=OPENAI_TOOLS)
    assert len(world.memory.asked) == 1
    assert isinstance(events[-1], CallWritten)
    assert world.selector.requests[0].candidates == ["list_directory"]


async def test_an_answer_clears_the_conversations_calls() -> None:
    world = World(choice=None)
    await world.run(history(READ), session="s", tools=OPENAI_TOOLS)
    assert world.memory.cleared == [world.memory.asked[0].conversation]


async def test_a_first_request_asks_no_memory() -> None:
    world = World()
    await world.run(tools=OPENAI_TOOLS)
    assert world.memory.asked == []


async def test_the_release_that_voted_is_the_one_that_writes() -> None:
    world = World()
    world.selector.release = 7
    await world.run(tools=OPENAI_TOOLS)
    asked = world.writer.requests[0]
    assert world.selector.requests[0].toolset == asked.toolset
    assert asked.toolset is not None
    assert (asked.toolset.name, asked.release) == ("files", 7)


async def test_after_a_vote_of_the_base_model_no_release_writes() -> None:
    world = World()
    await world.run(tools=OPENAI_TOOLS)
    assert (world.writer.requests[0].toolset, world.writer.requests[0].release) == (None, None)


class Script:
    """A selector's choices, one after the other."""

    def __init__(self, *choices: str | None) -> None:
        self.choices = list(choices)

    def __call__(self, request: SelectionRequest) -> str | None:
        return self.choices.pop(0)


def parallel_world(*choices: str | None, arguments: Sequence[str] = ()) -> World:
    world = World()
    world.selector.choose = Script(*choices)
    if arguments:
        texts = list(arguments)

        async def generate(request: ArgumentsRequest) -> GeneratedArguments:
            world.writer.requests.append(request)
            return GeneratedArguments(arguments=texts.pop(0), attempts=1, adapter="base")

        world.writer.generate = generate  # type: ignore[method-assign]
    return world


def calls_in(events: list[Event]) -> list[str]:
    return [event.tool for event in events if isinstance(event, CallOpened)]


async def test_parallel_calls_are_made_until_the_vote_is_done() -> None:
    world = parallel_world("read_file", "read_file", "list_directory", None, arguments=['{"path":"a"}', '{"path":"b"}', "{}"])
    events = await world.run(tools=OPENAI_TOOLS, parallel_tool_calls=True)
    assert calls_in(events) == ["read_file", "read_file", "list_directory"]
    assert world.engine.chats == [], "calls were made: there is nothing to answer"
    shown = world.selector.requests[1].messages[-2]["tool_calls"][0]["function"]
    assert shown == {"name": "read_file", "arguments": '{"path":"a"}'}
    assert all(request.may_answer for request in world.selector.requests[1:])


@pytest.mark.parametrize("said", [{}, {"parallel_tool_calls": False}])
async def test_otherwise_a_turn_makes_one_call(said: dict[str, Any]) -> None:
    world = parallel_world("read_file", "list_directory", None)
    assert calls_in(await world.run(tools=OPENAI_TOOLS, **said)) == ["read_file"]


async def test_a_tool_chosen_by_name_is_called_once() -> None:
    named = {"type": "function", "function": {"name": "read_file"}}
    world = parallel_world("read_file", "read_file")
    assert calls_in(await world.run(tools=OPENAI_TOOLS, parallel_tool_calls=True, tool_choice=named)) == ["read_file"]


async def test_a_call_that_was_made_already_ends_the_turn_and_is_not_told() -> None:
    world = parallel_world("read_file", "read_file", arguments=['{"path":"a"}', '{"path": "a"}'])
    assert calls_in(await world.run(tools=OPENAI_TOOLS, parallel_tool_calls=True)) == ["read_file"]


async def test_a_turn_makes_eight_calls_at_most() -> None:
    world = parallel_world(*["read_file"] * 20, arguments=[f'{{"path":"{i}"}}' for i in range(20)])
    assert len(calls_in(await world.run(tools=OPENAI_TOOLS, parallel_tool_calls=True))) == 8


async def test_the_first_call_stands_when_a_further_vote_fails() -> None:
    world = parallel_world("read_file")

    class Failing(Script):
        def __call__(self, request: SelectionRequest) -> str | None:
            if not self.choices:
                raise Unavailable("the selector is gone")
            return super().__call__(request)

    world.selector.choose = Failing("read_file")
    events = await world.run(tools=OPENAI_TOOLS, parallel_tool_calls=True)
    assert calls_in(events) == ["read_file"]
    assert isinstance(events[-1], CallWritten)


FAILED_TWICE = history(READ, READ)


def writing(world: World, *arguments: str) -> World:
    """The world with these arguments written, one after the other."""
    texts = list(arguments)

    async def generate(request: ArgumentsRequest) -> GeneratedArguments:
        world.writer.requests.append(request)
        return GeneratedArguments(arguments=texts.pop(0), attempts=1, adapter="base", usage=Usage(completion_tokens=5))

    world.writer.generate = generate  # type: ignore[method-assign]
    return world


async def test_a_call_that_failed_twice_alike_is_not_made_again_and_the_vote_goes_on_without_its_tool() -> None:
    world = writing(parallel_world("read_file", "list_directory"), '{"path": "a/"}', "{}")
    events = await world.run(FAILED_TWICE, tools=OPENAI_TOOLS)
    assert calls_in(events) == ["list_directory"]
    assert [request.candidates for request in world.selector.requests] == [["read_file", "list_directory"], ["list_directory"]]
    assert [event.usage.completion_tokens for event in events if isinstance(event, Withheld)] == [5], "what it cost is counted"
    assert len([event for event in events if isinstance(event, Selected)]) == 1, "one decision is told"


async def test_then_an_answer_in_text_may_win() -> None:
    world = writing(parallel_world("read_file", None), '{"path": "a"}')
    events = await world.run(FAILED_TWICE, tools=OPENAI_TOOLS)
    assert isinstance(events[-1], Answered)
    assert "failed 2 times" in world.engine.chats[0]["messages"][-1]["content"]


async def test_the_same_tool_may_be_called_with_other_arguments() -> None:
    world = writing(parallel_world("read_file"), '{"path": "b"}')
    events = await world.run(FAILED_TWICE, tools=OPENAI_TOOLS)
    assert calls_in(events) == ["read_file"]
    assert len(world.writer.requests) == 1, "its arguments are written once"


async def test_where_only_that_call_may_be_made_the_turn_stops_and_says_so() -> None:
    world = writing(parallel_world("read_file"), '{"path": "a"}')
    events = await world.run(FAILED_TWICE, session="s", tools=OPENAI_TOOLS[:1], tool_choice="required")
    assert isinstance(events[-1], Stopped)
    assert "read_file failed" in events[-1].text
    assert world.memory.cleared


async def test_a_tool_chosen_by_name_is_called_whatever_it_did_before() -> None:
    named = {"type": "function", "function": {"name": "read_file"}}
    world = writing(parallel_world("read_file"), '{"path": "a"}')
    assert calls_in(await world.run(FAILED_TWICE, tools=OPENAI_TOOLS, tool_choice=named)) == ["read_file"]


async def test_a_further_parallel_call_that_failed_before_ends_the_turn() -> None:
    world = writing(parallel_world("list_directory", "read_file"), "{}", '{"path": "a"}')
    assert calls_in(await world.run(FAILED_TWICE, tools=OPENAI_TOOLS, parallel_tool_calls=True)) == ["list_directory"]


async def test_another_keys_conversation_is_another_one() -> None:
    world = World()
    body = ChatBody.model_validate({"model": "base", "messages": history(READ), "tools": OPENAI_TOOLS})
    request = understood(body, default_tools=[], session="s")
    for caller in ("ann", "bob"):
        [event async for event in world.pipeline.run(replace(request, sender=Sender(caller=caller)))]
    assert len({asked.conversation for asked in world.memory.asked}) == 2
