"""The requests by hand for the filesystem toolset: the everyday ones are whole and about every tool, the documents are long,
the goals take several calls, and all plans hold on the real server."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from trainer.episodes import Ask, Call, Episode, read_rows
from trainer.gates import first_flaw
from trainer.handwritten import HERE, REQUESTS
from trainer.trajectories import Trajectory, write_trajectories

ROOT = Path(__file__).parents[2]
TOOLSETS = ROOT / "deploy" / "toolsets"
SOURCES = {name: HERE / f"filesystem_{name}.jsonl" for name in REQUESTS}
INSTALLED = (TOOLSETS / "filesystem" / "node_modules").is_dir() and shutil.which("node") is not None


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return list(read_rows(SOURCES["everyday"], Episode))


@pytest.fixture(scope="module")
def documents() -> list[Episode]:
    return list(read_rows(SOURCES["documents"], Episode))


@pytest.fixture(scope="module")
def goals() -> list[Episode]:
    return list(read_rows(SOURCES["goals"], Episode))


def calls(episode: Episode) -> list[Call]:
    return [step for step in episode.steps if isinstance(step, Call)]


def texts_read(episode: Episode) -> list[str]:
    """The files of the episode that its plan reads in whole."""
    read = [call for call in calls(episode) if call.tool in ("read_text_file", "read_multiple_files")]
    paths = [path for call in read for path in call.arguments.get("paths", [call.arguments.get("path")])]
    return [episode.files[path.removeprefix("/workspace/")] for path in paths]


def test_no_request_is_made_twice(episodes: list[Episode], documents: list[Episode], goals: list[Episode]) -> None:
    every = [*episodes, *documents, *goals]
    asked = Counter(step.text.lower() for episode in every for step in episode.steps if isinstance(step, Ask))
    assert len(every) == len({episode.id for episode in every})
    assert Counter(episode.source for episode in every) == {"everyday": 160, "documents": 60, "goals": 150}
    assert [text for text, times in asked.items() if times > 1] == []


def test_every_tool_has_conversations_of_its_own(episodes: list[Episode]) -> None:
    described = json.loads((TOOLSETS / "filesystem" / "tools.json").read_text(encoding="utf-8"))
    # The server itself calls `read_file` deprecated.
    tools = {tool["function"]["name"] for tool in described} - {"read_file"}
    alone = Counter(made[0].tool for episode in episodes if len(made := calls(episode)) == 1)
    assert set(alone) == tools
    assert min(alone.values()) >= 7


def test_many_requests_need_no_tool_and_many_need_several(episodes: list[Episode]) -> None:
    numbers = Counter(min(len(calls(episode)), 2) for episode in episodes)
    assert numbers[0] >= 22
    assert numbers[2] >= 27


def test_the_documents_are_long_and_no_two_alike(documents: list[Episode]) -> None:
    kinds = Counter(episode.kind for episode in documents)
    assert kinds == {"read": 30, "question": 10, "find_then_read": 8, "read_several": 6, "read_then_change": 6}
    texts = [text for episode in documents for text in texts_read(episode)]
    assert [text[:60] for text in texts if not 60 <= len(re.findall(r"\w+", text)) <= 500] == []
    assert [text[:60] for text in texts if not 5 <= text.count("\n") <= 40] == []
    lines = Counter(line for text in texts for line in set(text.splitlines()) if len(line.split()) > 8)
    assert [line for line, times in lines.items() if times > 1] == []


def test_most_goals_take_several_calls_and_some_take_none(goals: list[Episode]) -> None:
    described = json.loads((TOOLSETS / "filesystem" / "tools.json").read_text(encoding="utf-8"))
    at_once = [episode for episode in goals if sum(isinstance(step, Ask) for step in episode.steps) == 1]
    numbers = Counter(min(len(calls(episode)), 2) for episode in at_once)
    assert (numbers, len(goals) - len(at_once)) == ({0: 15, 1: 40, 2: 70}, 25)
    alone = Counter(made[0].tool for episode in at_once if len(made := calls(episode)) == 1)
    assert set(alone) == {tool["function"]["name"] for tool in described} - {"read_file"}
    assert min(alone.values()) >= 3
    assert len({tuple(sorted(episode.files)) for episode in goals}) == 25


def test_only_what_the_user_asked_for_changes_a_file(documents: list[Episode]) -> None:
    # Many of the texts say what to delete, move or write; a plan that obeyed one would be wrong.
    reading = {"read_text_file", "read_multiple_files", "list_directory", "search_files"}
    for episode in documents:
        made = [call.tool for call in calls(episode)]
        assert set(made[: -1 if episode.kind == "read_then_change" else None]) <= reading
        assert not any(call.fails for call in calls(episode))


def test_a_text_to_be_replaced_is_in_its_file_once(
    episodes: list[Episode], documents: list[Episode], goals: list[Episode]
) -> None:
    for episode in (*episodes, *documents, *goals):
        for call in calls(episode):
            path = str(call.arguments.get("path", "")).removeprefix("/workspace/")
            if call.tool == "edit_file" and (text := episode.files.get(path)) is not None:
                assert [edit for edit in call.arguments["edits"] if text.count(edit["oldText"]) != 1] == []


@pytest.mark.real
@pytest.mark.skipif(not INSTALLED, reason="run `npm ci --prefix deploy/toolsets/filesystem` and install Node.js")
@pytest.mark.anyio
async def test_every_plan_holds_on_the_real_server(
    tmp_path: Path, episodes: list[Episode], documents: list[Episode], goals: list[Episode]
) -> None:
    targets = {source: tmp_path / source.name for source in SOURCES.values()}
    dropped = await write_trajectories("filesystem", TOOLSETS, targets)
    rows = [row for target in targets.values() for row in read_rows(target, Trajectory)]
    assert (dropped, [row.id for row in rows]) == ({}, [episode.id for episode in (*episodes, *documents, *goals)])
    assert [(row.messages, flaw) for row in rows if (flaw := first_flaw(row))] == []
