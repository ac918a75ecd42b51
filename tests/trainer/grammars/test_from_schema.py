"""A toolset that nobody wrote a grammar for: what is asked of it, and that it happens on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.contracts.execution import ToolCallSpec, ToolResult, ToolsetInfo
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import Tool
from tests.trainer.grammars.notes_toolset import TOOLS, notes_toolset
from trainer.episodes import Ask, Call, Episode, read_rows, write_rows
from trainer.gates import first_flaw
from trainer.grammars.from_schema import deed, schema_grammar
from trainer.grammars.mechanics import alternatives
from trainer.grammars.schema_words import HELDOUT, TRAIN, Wording
from trainer.queries import grammar
from trainer.trajectories import Trajectory, execute, write_trajectories

BY_NAME = {tool.name: tool for tool in TOOLS}


class Yes:
    """A runner at which every call succeeds."""

    async def list_toolsets(self) -> list[ToolsetInfo]:
        return []

    async def list_tools(self, toolset: str) -> list[Tool]:
        return TOOLS

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult:
        return ToolResult(outcome="ok")


def written(part: str, count: int = 150, seed: int = 0) -> list[Episode]:
    return schema_grammar("notes", part, TOOLS).episodes(count, seed)


def asked(episodes: list[Episode]) -> set[str]:
    return {step.text.lower() for episode in episodes for step in episode.steps if isinstance(step, Ask)}


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_every_tool_is_called_with_arguments_that_satisfy_its_schema(part: str) -> None:
    calls = [step for episode in written(part) for step in episode.steps if isinstance(step, Call)]
    assert {call.tool for call in calls} == set(BY_NAME)
    for call in calls:
        assert [error.message for error in compiled_schema(BY_NAME[call.tool]).iter_errors(call.arguments)] == []
    given = [call.arguments for call in calls if call.tool == "create_note"]
    assert {key for arguments in given for key in arguments} == {"title", "priority", "state", "due", "pinned"}


@pytest.mark.anyio
@pytest.mark.parametrize("part", ["train", "heldout"])
async def test_every_value_is_said_by_the_user(part: str) -> None:
    for episode in written(part):
        row = await execute(episode, "notes", TOOLS, Yes())
        assert row is not None
        assert first_flaw(row) is None


def test_what_needs_a_note_comes_after_one_was_made() -> None:
    for episode in written("train"):
        calls = [step for step in episode.steps if isinstance(step, Call)]
        if [call.tool for call in calls][-1:] == ["append_lines"]:
            made = [call.arguments["title"] for call in calls if call.tool == "create_note"]
            assert {line["noteTitle"] for line in calls[-1].arguments["lines"]} == set(made)


def test_the_same_seed_writes_the_same_and_another_one_other_episodes() -> None:
    one, again, other = (written("train", seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert len({episode.id for episode in one} & {episode.id for episode in other}) < 0.1 * len(one)


def test_the_two_parties_say_nothing_alike() -> None:
    assert asked(written("train")) & asked(written("heldout")) == set()

    def templates(wording: Wording) -> Iterator[str]:
        lists = (wording.requests, wording.bare, wording.pairs, wording.follow, wording.chat, wording.outside, wording.another)
        yield from (text.lower() for templates in lists for template in templates for text in alternatives(template))

    # A bare order has no template around it: the verbs keep it apart.
    assert set(templates(TRAIN)) & set(templates(HELDOUT)) <= {"{do}", "{do} {given}"}
    for family, verbs in TRAIN.verbs.items():
        assert set(verbs) & set(HELDOUT.verbs[family]) == set()
    for hint, values in TRAIN.values.items():
        assert set(values) & set(HELDOUT.values[hint]) == set()


def test_a_toolset_does_not_meet_requests_for_itself_as_foreign() -> None:
    weather = Tool(name="get_forecast", description="Weather and rain of a city.")
    told = asked(schema_grammar("sky", "train", [weather]).episodes(200, 0))
    assert not any("weather" in text for text in told if "rome" in text or "denver" in text)


@pytest.mark.parametrize(
    ("name", "description", "verb", "objects"),
    [
        ("create_note", "Creates a new note.", "create", ("note", "a new note")),
        ("getUserInfo", "", "get", ("user info",)),
        ("weather", "Get the weather of a city (in Celsius)", "get", ("weather", "the weather of a city")),
        ("browser_navigate", "Navigate to a URL", "browser", ("navigate",)),
    ],
)
def test_a_deed_is_read_from_name_and_description(name: str, description: str, verb: str, objects: tuple[str, ...]) -> None:
    found = deed(Tool(name=name, description=description))
    assert (found.verb, found.objects) == (verb, objects)


def test_schemas_without_a_sayable_value_are_left_out() -> None:
    matrix = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    endless = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    coded = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{200}$"}}, "required": ["code"]}
    tools = [
        Tool(name="invert", parameters={"type": "object", "properties": {"matrix": matrix}, "required": ["matrix"]}),
        Tool(name="grow", parameters=endless),
        Tool(name="decode", parameters=coded),
    ]
    kinds = {episode.kind for episode in schema_grammar("odd", "train", tools).episodes(30, 0)}
    assert kinds == {"chat", "outside"}


def test_a_written_grammar_is_preferred_and_without_tools_none_is_made_up() -> None:
    assert grammar("filesystem", "train", TOOLS).name == "filesystem_train"
    assert grammar("notes", "heldout", TOOLS).name == "notes_heldout"
    with pytest.raises(LookupError, match=r"services\.sandbox\.pin notes"):
        grammar("notes", "train")


@pytest.mark.real
@pytest.mark.anyio
async def test_what_is_asked_happens_on_the_real_server(tmp_path: Path) -> None:
    root = notes_toolset(tmp_path / "toolsets")
    episodes = written("train", 60)
    write_rows(root / "episodes.jsonl", episodes)
    dropped = await write_trajectories("notes", root, {root / "episodes.jsonl": root / "rows.jsonl"})
    rows = list(read_rows(root / "rows.jsonl", Trajectory))
    assert (dropped, len(rows)) == ({}, len(episodes))
    assert not any(row.failed for row in rows)
    assert [flaw for row in rows if (flaw := first_flaw(row))] == []
    assert "append_lines" in {call["function"]["name"] for row in rows for m in row.messages for call in m.get("tool_calls", [])}
