"""The everyday requests for the filesystem toolset: whole, about every tool, and with plans that hold on the real server."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from trainer.episodes import Ask, Call, Episode, read_rows
from trainer.gates import first_flaw
from trainer.trajectories import Trajectory, write_trajectories

ROOT = Path(__file__).parents[2]
TOOLSETS = ROOT / "deploy" / "toolsets"
EVERYDAY = ROOT / "trainer" / "heldout" / "filesystem_everyday.jsonl"
INSTALLED = (TOOLSETS / "filesystem" / "node_modules").is_dir() and shutil.which("node") is not None


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return list(read_rows(EVERYDAY, Episode))


def calls(episode: Episode) -> list[Call]:
    return [step for step in episode.steps if isinstance(step, Call)]


def test_no_request_is_made_twice(episodes: list[Episode]) -> None:
    asked = Counter(step.text.lower() for episode in episodes for step in episode.steps if isinstance(step, Ask))
    assert len(episodes) == len({episode.id for episode in episodes}) == 160
    assert {episode.source for episode in episodes} == {"everyday"}
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


def test_a_text_to_be_replaced_is_in_its_file_once(episodes: list[Episode]) -> None:
    for episode in episodes:
        for call in calls(episode):
            if call.tool == "edit_file" and (text := episode.files.get(call.arguments["path"])) is not None:
                assert [edit for edit in call.arguments["edits"] if text.count(edit["oldText"]) != 1] == []


@pytest.mark.real
@pytest.mark.skipif(not INSTALLED, reason="run `npm ci --prefix deploy/toolsets/filesystem` and install Node.js")
@pytest.mark.anyio
async def test_every_plan_holds_on_the_real_server(tmp_path: Path, episodes: list[Episode]) -> None:
    dropped = await write_trajectories("filesystem", TOOLSETS, {EVERYDAY: tmp_path / "rows.jsonl"})
    rows = list(read_rows(tmp_path / "rows.jsonl", Trajectory))
    assert (dropped, [row.id for row in rows]) == ({}, [episode.id for episode in episodes])
    assert [(row.messages, flaw) for row in rows if (flaw := first_flaw(row))] == []
