"""Episodes that happen: against a runner of our own, and once against the real server in the real sandbox."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.shared.contracts.errors import DeadlineExceeded, InvalidRequest
from services.shared.contracts.execution import ContentPart, ToolCallSpec, ToolResult, ToolsetInfo
from services.shared.contracts.tools import Tool
from tests.trainer.rows_of import TOOLS
from trainer import trajectories
from trainer.episodes import Ask, Call, Episode, Say, read_rows, write_rows
from trainer.gates import first_flaw
from trainer.grammars.mechanics import MEDIA
from trainer.queries import grammar
from trainer.rows import decisions
from trainer.trajectories import Drop, Trajectory, drops_of, execute, lay_out, write_trajectories

TOOLSETS = Path(__file__).parents[2] / "deploy" / "toolsets"
INSTALLED = (TOOLSETS / "filesystem" / "node_modules").is_dir() and shutil.which("node") is not None


class Shelf:
    """A runner whose only file is a.txt."""

    async def list_toolsets(self) -> list[ToolsetInfo]:
        return []

    async def list_tools(self, toolset: str) -> list[Tool]:
        return TOOLS

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult:
        path = json.loads(call.arguments).get("path")
        if path is None:
            raise InvalidRequest("path is missing")
        there = path == "a.txt"
        text = "modified: Sat Nov 21 2026 07:18:37" if there else "ENOENT"
        return ToolResult(outcome="ok" if there else "tool_error", content=[ContentPart(type="text", text=text)])


def episode(*paths: str, fails: bool = False, tool: str = "read_file", **more: object) -> Episode:
    calls = [Call(tool=tool, arguments={"path": path}, fails=fails and path != "a.txt") for path in paths]
    return Episode(source="s", kind="k", steps=[Ask(text="?"), *calls, Say(text="!")], **more)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_results_follow_their_calls_and_failures_are_marked() -> None:
    row = await execute(episode("b.txt", "a.txt", fails=True, system="Be brief."), "files", TOOLS, Shelf())
    assert isinstance(row, Trajectory)
    assert [message["role"] for message in row.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert row.failed == ["call_1"]
    assert (
        first_flaw(row.model_copy(update={"messages": [{"role": "user", "content": "a.txt b.txt"}, *row.messages[2:]]})) is None
    )


@pytest.mark.anyio
async def test_a_call_whose_end_nobody_knows_teaches_whatever_comes_of_it() -> None:
    open_calls = [Call(tool="read_file", arguments={"path": path}, fails=None) for path in ("b.txt", "a.txt")]
    plan = [Ask(text="b.txt, then a.txt"), *open_calls, Say(text="Done."), Ask(text="a.txt"), open_calls[1], Say(text="Done.")]
    row = await execute(Episode(source="s", kind="k", steps=plan), "files", TOOLS, Shelf())
    assert isinstance(row, Trajectory)
    assert (row.failed, row.wanted, row.mistakes) == (["call_1"], ["call_1"], set())
    # What was planned after the failure is not called, and nobody says that it is done.
    assert [message["content"] for message in row.messages if not message.get("tool_calls")] == [
        "b.txt, then a.txt", "ENOENT", "That did not work.", "a.txt", row.messages[6]["content"], "Done.",
    ]  # fmt: skip
    assert first_flaw(row) is None
    found = decisions(row.id, row.kind, row.messages, TOOLS, row.mistakes)
    assert [decision.label for decision in found] == ["read_file", "summarize", "read_file", "summarize"]


@pytest.mark.anyio
async def test_a_plan_that_goes_otherwise_is_no_trajectory() -> None:
    said = await execute(episode("b.txt"), "files", TOOLS, Shelf())
    assert said == "call 1, read_file, failed: ENOENT"


class Slow(Shelf):
    """A shelf on which some files are never reached."""

    def __init__(self, never: Sequence[str]) -> None:
        self.never = never

    async def list_tools(self, toolset: str) -> list[Tool]:
        return TOOLS

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult:
        if json.loads(call.arguments)["path"] in self.never:
            raise DeadlineExceeded("no answer in 30 s")
        return await super().call_tool(call, timeout_s=timeout_s)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slow:
    slow = Slow(())

    @asynccontextmanager
    async def opened(toolsets_dir: Path) -> AsyncIterator[tuple[Slow, Path]]:
        (tmp_path / "workspace").mkdir(exist_ok=True)
        yield slow, tmp_path / "workspace"

    monkeypatch.setattr(trajectories, "sandbox", opened)
    return slow


@pytest.mark.anyio
async def test_what_never_ends_or_goes_otherwise_is_left_out_and_told(shelf: Slow, tmp_path: Path) -> None:
    shelf.never = ["slow.txt"]
    write_rows(tmp_path / "episodes.jsonl", [episode("slow.txt"), episode("a.txt"), episode("b.txt")])
    rows = tmp_path / "rows.jsonl"
    assert await write_trajectories("files", tmp_path, {tmp_path / "episodes.jsonl": rows}) == {"k": 2}
    assert [row.messages[1]["tool_calls"][0]["function"]["arguments"] for row in read_rows(rows, Trajectory)] == [
        '{"path": "a.txt"}'
    ]
    drops = list(read_rows(drops_of(rows), Drop))
    assert [drop.reason for drop in drops] == ["no answer in 30 s", "call 1, read_file, failed: ENOENT"]
    assert {drop.rule for drop in drops} == {"execution"}


@pytest.mark.anyio
@pytest.mark.parametrize("tools", [["read_file"], ["read_file", "list_files", "x", "y"]])
async def test_a_server_that_answers_nothing_more_ends_the_step(shelf: Slow, tmp_path: Path, tools: list[str]) -> None:
    names = [f"{number}.txt" for number in range(40)]
    shelf.never = names
    write_rows(tmp_path / "episodes.jsonl", [episode(name, tool=tools[i % len(tools)]) for i, name in enumerate(names)])
    with pytest.raises(RuntimeError, match=r"episode [0-9a-f]{16} \(k\): no answer in 30 s"):
        await write_trajectories("files", tmp_path, {tmp_path / "episodes.jsonl": tmp_path / "rows.jsonl"})
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.anyio
async def test_a_tool_that_its_server_dies_of_is_soon_let_be(shelf: Slow, tmp_path: Path) -> None:
    shelf.never = ["slow.txt"]
    written = [episode(name, tool=tool) for name, tool in (("slow.txt", "kill"), ("a.txt", "read_file")) * 8]
    write_rows(tmp_path / "episodes.jsonl", written)
    rows = tmp_path / "rows.jsonl"
    assert await write_trajectories("files", tmp_path, {tmp_path / "episodes.jsonl": rows}) == {"k": 8}
    assert len(list(read_rows(rows, Trajectory))) == 8
    reasons = [drop.reason for drop in read_rows(drops_of(rows), Drop)]
    assert reasons == ["no answer in 30 s"] * 5 + ["kill was not tried again: its last 5 calls came to no result"] * 3


@pytest.mark.anyio
async def test_arguments_that_the_sandbox_refuses_are_a_failure() -> None:
    wrong = Episode(source="s", kind="k", steps=[Ask(text="?"), Call(tool="read_file", arguments={}, fails=True), Say(text="!")])
    row = await execute(wrong, "files", TOOLS, Shelf())
    assert isinstance(row, Trajectory)
    assert (row.failed, row.messages[2]["content"]) == (["call_1"], "path is missing")


@pytest.mark.anyio
async def test_clocks_are_those_of_the_episode() -> None:
    first, again = [await execute(episode("a.txt"), "files", TOOLS, Shelf()) for _ in range(2)]
    assert first == again
    assert isinstance(first, Trajectory)
    assert "Nov 21 2026 07:18:37" not in str(first.messages)


def test_every_episode_finds_its_own_files_only(tmp_path: Path) -> None:
    lay_out(episode("a.txt", files={"x/old.txt": "1"}), tmp_path)
    lay_out(episode("a.txt", files={"n/a.txt": "2", "p.png": MEDIA}, folders=["empty"]), tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["empty", "n", "n/a.txt", "p.png"]


@pytest.mark.real
@pytest.mark.skipif(not INSTALLED, reason="run `npm ci --prefix deploy/toolsets/filesystem` and install Node.js")
@pytest.mark.anyio
async def test_gold_plans_hold_against_the_real_server(tmp_path: Path) -> None:
    written = grammar("filesystem", "train").episodes(90, 5)
    write_rows(tmp_path / "episodes.jsonl", written)
    dropped = await write_trajectories("filesystem", TOOLSETS, {tmp_path / "episodes.jsonl": tmp_path / "rows.jsonl"})
    rows = list(read_rows(tmp_path / "rows.jsonl", Trajectory))
    assert sum(dropped.values()) <= 2
    assert len(rows) + sum(dropped.values()) == len(written)
    assert [row.id for row in rows if first_flaw(row)] == []
    assert any(row.failed for row in rows)
