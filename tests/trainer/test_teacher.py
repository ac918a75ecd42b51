"""A teacher writes queries and plays the assistant: the same data whatever goes wrong in between, and nothing paid twice."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.shared.contracts.errors import DeadlineExceeded
from services.shared.contracts.execution import ContentPart, ToolCallSpec, ToolResult, ToolsetInfo
from services.shared.contracts.tools import JsonObject, Tool
from tests.trainer.grammars.notes_toolset import TOOLS, notes_toolset
from tests.trainer.hostile_teacher import FAULTS, HostileTeacher
from trainer.episodes import read_rows
from trainer.gates import first_flaw
from trainer.progress import Tick
from trainer.teacher import MAX_TURNS, PARTIAL, QUERIES, Query, converse, teach, world_for
from trainer.teacher_client import Teacher, TeacherDown, TeacherSettings
from trainer.trajectories import TRAJECTORIES, Trajectory

pytestmark = pytest.mark.anyio


class Notes:
    """A runner whose answer depends on nothing; `slow` calls never end."""

    def __init__(self, slow: str | None = None) -> None:
        self.slow = slow

    async def list_toolsets(self) -> list[ToolsetInfo]:
        return []

    async def list_tools(self, toolset: str) -> list[Tool]:
        return TOOLS

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult:
        if call.tool == self.slow:
            raise DeadlineExceeded("too long")
        return ToolResult(outcome="ok", content=[ContentPart(type="text", text="a, b")])


@asynccontextmanager
async def opened(toolsets_dir: Path) -> AsyncIterator[tuple[Notes, Path]]:
    workspace = toolsets_dir / f"workspace-{os.urandom(4).hex()}"
    workspace.mkdir()
    yield Notes(), workspace


async def taught(server: HostileTeacher, root: Path, out: Path, **settings: Any) -> JsonObject:
    limits = {"timeout_s": 1.0, "backoff_s": 0.001, "attempts": 12, "conversations": 3, **settings}
    given = TeacherSettings(base_url=server.url, model="m", **limits)
    return await teach("notes", root, out, given, per_tool=10, seed=0, opened=opened)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return notes_toolset(tmp_path / "toolsets")


async def test_the_same_data_whatever_goes_wrong_in_between(root: Path, tmp_path: Path) -> None:
    async with HostileTeacher().serving() as calm:
        report = await taught(calm, root, tmp_path / "calm")
    async with HostileTeacher(seed=4, faults=FAULTS).serving() as wild:
        await taught(wild, root, tmp_path / "wild")
        assert set(wild.seen) == {*FAULTS, ""}
    first, second = ((tmp_path / name / TRAJECTORIES).read_bytes() for name in ("calm", "wild"))
    assert first == second
    rows = list(read_rows(tmp_path / "calm" / TRAJECTORIES, Trajectory))
    assert len({row.id for row in rows}) == len(rows) == report["trajectories"]
    assert sum(row.messages[0]["content"] == "Thanks!" for row in rows) == 1
    assert [flaw for row in rows if (flaw := first_flaw(row))] == []


async def test_a_run_after_a_crash_asks_only_what_is_missing(root: Path, tmp_path: Path) -> None:
    async with HostileTeacher().serving() as calm:
        await taught(calm, root, tmp_path / "calm")
    out = tmp_path / "out"
    async with HostileTeacher(dies_after=40).serving() as dying:
        with pytest.raises(TeacherDown, match="times in a row"):
            await taught(dying, root, out, stop_after=6)
    partial = (out / PARTIAL).read_text().splitlines()
    assert partial
    assert not (out / TRAJECTORIES).exists()
    async with HostileTeacher().serving() as healed:
        report = await taught(healed, root, out)
        assert set(dying.answered) & set(healed.asked) == set()
        assert report["cached"] == len(dying.answered)
    assert (out / TRAJECTORIES).read_bytes() == (tmp_path / "calm" / TRAJECTORIES).read_bytes()
    assert set(partial) <= set((out / TRAJECTORIES).read_text().splitlines())
    assert not (out / PARTIAL).exists()
    async with HostileTeacher().serving() as unneeded:
        assert (await taught(unneeded, root, out))["requests"] == 0


async def test_nothing_is_done_where_the_teacher_gave_nothing(root: Path, tmp_path: Path) -> None:
    async with HostileTeacher(faults={"400": 1.0}).serving() as server:
        with pytest.raises(TeacherDown, match="gave no query that can be used, last status 400"):
            await taught(server, root, tmp_path / "out", stop_after=1000)
    assert not (tmp_path / "out" / TRAJECTORIES).exists()


async def test_queries_are_of_every_level_and_stand_once(root: Path, tmp_path: Path) -> None:
    async with HostileTeacher().serving() as server:
        await taught(server, root, tmp_path / "out")
    queries = list(read_rows(tmp_path / "out" / QUERIES, Query))
    assert {query.level for query in queries} == {"easy", "medium", "hard", "vague", "several", "none"}
    assert {query.tool for query in queries} == {*(tool.name for tool in TOOLS), None}
    assert len({query.text for query in queries}) == len(queries)


class Saying(Teacher):
    """A teacher that says one thing, whatever it is asked."""

    def __init__(self, tmp_path: Path, message: JsonObject) -> None:
        super().__init__(TeacherSettings(), tmp_path / "c")
        self.message = message

    async def _request(self, body: JsonObject) -> JsonObject:
        self.usage.requests += 1
        return {"choices": [{"message": self.message}]}


def calling(tool: str, arguments: str = "{}") -> JsonObject:
    function = {"name": tool, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": function}]}


@pytest.mark.parametrize(
    "message", [calling("fly"), calling("list_notes", "{"), calling("list_notes", "[]"), {"content": " "}, {}]
)
async def test_what_is_no_call_and_no_answer_is_malformed(tmp_path: Path, message: JsonObject) -> None:
    async with Saying(tmp_path, message) as teacher:
        assert await converse(Query(text="?", level="easy", tool=None), teacher, "notes", TOOLS, Notes()) is None
        assert (teacher.usage.malformed, teacher.usage.skipped) == (2, 1)


async def test_a_conversation_without_an_end_is_given_up(tmp_path: Path) -> None:
    async with Saying(tmp_path, calling("list_notes")) as teacher:
        assert await converse(Query(text="?", level="easy", tool=None), teacher, "notes", TOOLS, Notes()) is None
        assert teacher.usage.requests == MAX_TURNS


async def taught_slowly(root: Path, out: Path, per_tool: int) -> JsonObject:
    @asynccontextmanager
    async def slow(toolsets_dir: Path) -> AsyncIterator[tuple[Notes, Path]]:
        async with opened(toolsets_dir) as (_, workspace):
            yield Notes(slow="list_notes"), workspace

    async with HostileTeacher().serving() as server:
        settings = TeacherSettings(base_url=server.url, model="m", conversations=1)
        return await teach("notes", root, out, settings, per_tool=per_tool, seed=0, opened=slow)


async def test_it_tells_how_many_of_its_requests_and_conversations_are_done(root: Path, tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def bar(name: str) -> Iterator[Tick]:
        yield lambda done, total: told.setdefault(name, []).append((done, total))

    async with HostileTeacher().serving() as server:
        settings = TeacherSettings(base_url=server.url, model="m", conversations=3)
        report = await teach("notes", root, tmp_path / "out", settings, per_tool=10, seed=0, opened=opened, bar=bar)
    assert list(told) == ["teacher, queries", "teacher, conversations"]
    for steps in told.values():
        assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))
    assert len(told["teacher, conversations"]) == report["queries"]


async def test_a_call_that_never_ends_costs_one_conversation(root: Path, tmp_path: Path) -> None:
    report = await taught_slowly(root, tmp_path / "out", per_tool=5)
    assert report["trajectories"] == 1


async def test_calls_of_which_none_ends_end_the_step(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"query '.*': too long"):
        await taught_slowly(root, tmp_path / "out", per_tool=20)


def test_files_are_those_of_the_toolset_s_own_grammar() -> None:
    assert world_for("filesystem", "1").files
    assert world_for("notes", "1").files == {}


@pytest.mark.real
async def test_calls_happen_in_the_sandbox(root: Path, tmp_path: Path) -> None:
    async with HostileTeacher().serving() as server:
        settings = TeacherSettings(base_url=server.url, model="m", conversations=2)
        report = await teach("notes", root, tmp_path / "out", settings, per_tool=10, seed=0)
    rows = list(read_rows(tmp_path / "out" / TRAJECTORIES, Trajectory))
    assert len(rows) == report["queries"]
    results = {message["content"] for row in rows for message in row.messages if message["role"] == "tool"}
    assert [json.loads(text) for text in results] == [{}]
    assert not any(row.failed for row in rows)
