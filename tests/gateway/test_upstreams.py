"""What leaves the premises and what does not, and what happens when nobody answers there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.events import AnswerChunk, Answered, Outside
from services.gateway.upstreams import Upstreams, UpstreamsFile, read_upstreams, says_private
from services.gateway.wire.requests import CONTINUING, Sender
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded, UpstreamError
from services.shared.contracts.selection import Selection, SelectionRequest
from services.shared.contracts.tools import JsonObject, ToolsetRef
from tests.fakes import ScriptedEngine, tool

pytestmark = pytest.mark.anyio
FILE: JsonObject = {
    "upstreams": {"big": {"base_url": "http://127.0.0.1:9/v1", "model": "big-model", "max_concurrency": 1}},
    "policies": [
        {"toolsets": ["files"], "callers": ["ann"], "answer": "big", "low_margin": {"upstream": "big", "below": 0.3}},
        {"toolsets": ["none"], "callers": ["*"], "answer": "big"},
    ],
}
ANN = Sender(private=False, caller="ann")
FILES = ToolsetRef(name="files", digest="d", tools=["read_file", "stat", "fly"])
MESSAGES: list[JsonObject] = [{"role": "user", "content": "hi"}]
BODY: JsonObject = {"model": "base", "messages": MESSAGES}
UNSURE = Selection(
    tool="read_file",
    probabilities={"read_file": 0.4},
    margin=0.1,
    valid_mass=1,
    strategy="exact",
    adapter="files.select--1",
    release=7,
)
REQUEST = SelectionRequest(
    tools=[tool("read_file"), tool("stat"), tool("fly")], candidates=["read_file", "stat"], messages=MESSAGES
)


class Elsewhere:
    """A model elsewhere that says what it is told to, and remembers what it was asked."""

    def __init__(self, tool: str | None = "stat", error: AgentFluxError | None = None, breaks_after: int | None = None) -> None:
        self.tool, self.error, self.breaks_after = tool, error, breaks_after
        self.asked: list[JsonObject] = []

    async def chat(self, body: JsonObject) -> JsonObject:
        self.asked.append(body)
        if self.error:
            raise self.error
        calls = [{"id": "x", "type": "function", "function": {"name": self.tool, "arguments": "{}"}}] if self.tool else None
        message = {"role": "assistant", "content": "From elsewhere.", "tool_calls": calls}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}

    async def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]:
        self.asked.append(body)
        for number in range(3):
            if number == self.breaks_after or self.error:
                raise self.error or DeadlineExceeded("silence")
            yield {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": "stop" if number == 2 else None}]}


class World:
    """Upstreams with their one model and the local engine at hand."""

    def __init__(self, elsewhere: Any = None, file: JsonObject = FILE) -> None:
        self.counted: list[tuple[str, str, str]] = []
        self.elsewhere = elsewhere or Elsewhere()
        self.engine = ScriptedEngine()
        self.upstreams = Upstreams(UpstreamsFile.model_validate(file), {"big": self.elsewhere}, self._count)

    async def answer(self, sender: Sender = ANN, toolset: str = "files", *, stream: bool = False) -> list[Any]:
        return [event async for event in self.upstreams.answer(sender, toolset, BODY, stream=stream, engine=self.engine)]

    async def select(
        self, sender: Sender = ANN, toolset: str = "files", selection: Selection = UNSURE
    ) -> tuple[Selection, Outside | None]:
        ref = None if toolset == "other" else FILES.model_copy(update={"name": toolset})
        return await self.upstreams.second_opinion(sender, selection, REQUEST.model_copy(update={"toolset": ref}))

    def _count(self, upstream: str, purpose: str, outcome: str) -> None:
        self.counted.append((upstream, purpose, outcome))


STAYS = [
    (Sender(private=True, caller="ann"), "files"),
    (Sender(private=True, caller="anonymous"), "none"),
    (Sender(), "none"),
    (Sender(private=False, caller="bob"), "files"),
    (Sender(private=False, caller="*ann"), "files"),
    (ANN, "memory"),
    (ANN, "other"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_only_engines_know_is_not_asked_elsewhere(stream: bool) -> None:
    world = World()
    body = {**BODY, **CONTINUING, "top_k": 5, "top_p": 0.5}
    async for _ in world.upstreams.answer(ANN, "files", body, stream=stream, engine=world.engine):
        pass
    assert world.elsewhere.asked == [{**BODY, "top_p": 0.5}]
    async for _ in world.upstreams.answer(Sender(), "files", body, stream=stream, engine=world.engine):
        pass
    assert world.engine.chats == [body]


@pytest.mark.parametrize(("sender", "toolset"), STAYS)
async def test_private_requests_unnamed_callers_and_other_toolsets_never_leave(sender: Sender, toolset: str) -> None:
    world = World()
    for stream in (False, True):
        events = await world.answer(sender, toolset, stream=stream)
        assert not any(isinstance(event, Outside) for event in events)
    assert await world.select(sender, toolset) == (UNSURE, None)
    assert (world.elsewhere.asked, len(world.engine.chats)) == ([], 2)


async def test_without_a_policy_nothing_leaves() -> None:
    world = World(file={"upstreams": FILE["upstreams"]})
    await world.answer()
    assert await world.select() == (UNSURE, None)
    assert world.elsewhere.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_come_from_elsewhere_and_says_so_first(stream: bool) -> None:
    world = World()
    first, *rest = await world.answer(stream=stream)
    assert first == Outside("big", "answer")
    assert [type(event) for event in rest] == [AnswerChunk] * 3 if stream else [Answered]
    assert (world.engine.chats, world.counted) == ([], [("big", "answer", "used")])


async def test_requests_without_tools_have_a_policy_of_their_own() -> None:
    assert (await World().answer(Sender(private=False, caller="anonymous"), "none"))[0] == Outside("big", "answer")


@pytest.mark.parametrize("stream", [False, True])
async def test_when_nobody_answers_there_the_local_model_does_and_it_is_told(stream: bool) -> None:
    world = World(Elsewhere(error=DeadlineExceeded("too slow")))
    first, *rest = await world.answer(stream=stream)
    assert first == Outside("big", "answer", "deadline_exceeded")
    assert len(world.engine.chats) == 1
    assert rest
    assert world.counted == [("big", "answer", "deadline_exceeded")]


async def test_an_answer_that_breaks_off_is_an_error_and_not_two_answers() -> None:
    world = World(Elsewhere(breaks_after=1))
    with pytest.raises(UpstreamError, match="broke off"):
        await world.answer(stream=True)
    assert world.engine.chats == []


async def test_a_sure_selection_stays_here() -> None:
    world = World()
    sure = UNSURE.model_copy(update={"margin": 0.3})
    assert await world.select(selection=sure) == (sure, None)
    assert world.elsewhere.asked == []


async def test_a_low_margin_asks_for_one_of_the_candidates() -> None:
    world = World()
    selection, outside = await world.select()
    assert outside == Outside("big", "low_margin")
    assert (selection.tool, selection.adapter, selection.release) == ("stat", "upstream:big", 7)
    assert (selection.margin, selection.usage.prompt_tokens) == (0.1, 5)
    [asked] = world.elsewhere.asked
    assert [each["function"]["name"] for each in asked["tools"]] == ["read_file", "stat"]
    assert asked["tool_choice"] == "auto"


async def test_an_answer_in_text_is_a_selection_too_where_it_is_allowed() -> None:
    assert (await World(Elsewhere(tool=None)).select())[0].tool is None


@pytest.mark.parametrize("elsewhere", [Elsewhere(tool="fly"), Elsewhere(error=UpstreamError("500")), Elsewhere(tool="nonsense")])
async def test_a_second_opinion_that_is_none_leaves_the_first(elsewhere: Elsewhere) -> None:
    world = World(elsewhere)
    assert await world.select() == (UNSURE, Outside("big", "low_margin", "upstream_error"))
    assert world.counted == [("big", "low_margin", "upstream_error")]


async def test_more_than_max_concurrency_are_answered_here() -> None:
    class Slow(Elsewhere):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.go_on = asyncio.Event(), asyncio.Event()

        async def chat(self, body: JsonObject) -> JsonObject:
            self.entered.set()
            await self.go_on.wait()
            return await super().chat(body)

    slow = Slow()
    world = World(slow)
    waiting = asyncio.create_task(world.answer())
    await slow.entered.wait()
    assert (await world.answer())[0] == Outside("big", "answer", "service_unavailable")
    slow.go_on.set()
    assert (await waiting)[0] == Outside("big", "answer")
    assert (await world.answer())[0] == Outside("big", "answer"), "its place is free again"


@pytest.mark.parametrize(
    ("value", "private"),
    [
        (None, False),
        ("false", False),
        ("0", False),
        (False, False),
        ("", False),
        ("true", True),
        (True, True),
        ("1", True),
        ("oops", True),
    ],
)
def test_in_doubt_a_request_is_private(value: object, private: bool) -> None:
    assert says_private(value) is private


def test_a_settings_file_is_read_as_yaml_or_json(tmp_path: Path) -> None:
    path = tmp_path / "upstreams.json"
    path.write_text(json.dumps(FILE))
    assert read_upstreams(path, ["files"]) == UpstreamsFile.model_validate(FILE)
    assert read_upstreams(None, []) == UpstreamsFile()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("upstreams: [", "upstreams.yaml"),
        ("upstreams: {big: {base_url: ftp://x, model: m}}", "base_url"),
        ("upstreams: {big: {base_url: http://x/v1, model: m, key: abc}}", "key"),
        ("upstreams: {big: {base_url: http://x/v1, model: m, key_file: /nowhere/key}}", "/nowhere/key"),
        ("policies: [{callers: ['*'], answer: big}]", "policies.0 names upstream 'big'"),
        ("policies: [{callers: ['*'], toolsets: [flies]}]", "policies.0 names toolset 'flies'"),
        ("policies: [{toolsets: [files]}]", "callers"),
        ("policies: [{callers: ['*'], low_margin: {upstream: big, below: 7}}]", "below"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_at_the_start(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "upstreams.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_upstreams(path, ["files"])
