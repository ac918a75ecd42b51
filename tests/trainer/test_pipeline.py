"""The driver: which adapters a plan makes, from which rows; and all of it from conversations that are finished."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.shared.clients.adapters import AdapterStore
from tests.fakes import CHATML
from tests.trainer.conftest import talks
from tests.trainer.rows_of import TOOLS
from tests.trainer.tiny_world import PROFILE, make_world
from tests.trainer.tiny_world import talks as many_talks
from trainer.__main__ import continued, make_plan
from trainer.episodes import write_rows
from trainer.figures import read_outcomes
from trainer.metrics import TrainMetrics
from trainer.pipeline import Plan, jobs, run
from trainer.profiles import PROFILES
from trainer.progress import Tick
from trainer.trajectories import Trajectory


@pytest.fixture
def plan(tokenizer: Any, tmp_path: Path) -> Plan:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    write_rows(tmp_path / "train.jsonl", talks())
    profile = replace(PROFILES["small"], max_tokens=2000)
    return Plan("files", TOOLS, tmp_path, tmp_path, tmp_path, profile, seed=0, activation=None, joint=False, evaluated=10)


def made(plan: Plan) -> dict[str, tuple[str, str | None]]:
    return {job.alias: (job.role, job.tool) for job in jobs(plan)}


def test_a_selector_and_one_adapter_for_all_arguments(plan: Plan) -> None:
    assert made(plan) == {"select": ("selector", None), "joint": ("joint", None)}


def test_one_adapter_per_tool_that_has_rows_with_arguments(plan: Plan) -> None:
    per_tool = replace(plan, profile=replace(plan.profile, argument_adapters="per_tool"))
    assert made(per_tool) == {"select": ("selector", None), "read_file": ("arguments", "read_file")}


def test_one_adapter_for_everything(plan: Plan) -> None:
    [job] = jobs(replace(plan, joint=True))
    assert (job.alias, job.role) == ("joint", "joint")
    assert {row.role for row in job.rows} == {"selection", "arguments"}


def test_rows_that_are_too_long_are_left_out(plan: Plan) -> None:
    longest = max(len(row.ids) for job in jobs(plan) for row in job.rows)
    shorter = replace(plan, profile=replace(plan.profile, max_tokens=longest - 1))
    assert max(len(row.ids) for job in jobs(shorter) for row in job.rows) < longest


def test_what_somebody_said_or_paid_for_is_learned_whole(plan: Plan, tmp_path: Path) -> None:
    # With so large a number no conversation with one call that a grammar wrote is followed beyond its first decision.
    write_rows(tmp_path / "train.jsonl", [*talks(), *many_talks()])
    never = replace(plan, profile=replace(plan.profile, followed=10**9))
    targets = {
        name: sum(len(row.targets) for job in jobs(one) for row in job.rows)
        for name, one in {
            "grammar": never,
            "teacher": replace(never, teacher=True),
            "conversations": replace(never, conversations=[tmp_path / "train.jsonl"]),
            "all": replace(plan, profile=replace(plan.profile, followed=1)),
        }.items()
    }
    assert targets["grammar"] < targets["teacher"] == targets["conversations"] == targets["all"]


def test_activated_adapters_learn_one_turn_a_row(plan: Plan) -> None:
    merged, apart = (jobs(replace(plan, activation=activation))[0].rows for activation in (None, [1]))
    assert len(apart) > len(merged)


@contextmanager
def silent(name: str) -> Iterator[Tick]:
    yield lambda done, total: None


def asked_in_full() -> list[Trajectory]:
    """Conversations that are told apart by what is asked, as the split has to; and one that no gate lets through."""
    words = (
        "harbour",
        "violin",
        "tundra",
        "ledger",
        "quartz",
        "meadow",
        "copper",
        "saddle",
        "lantern",
        "orchid",
        "pebble",
        "walnut",
    )
    rows = []
    for number, row in enumerate(many_talks()):
        text = f"{row.messages[0]['content']} {words[number % 12]} {words[number * 5 % 12]} {number} 1a"
        rows.append(row.model_copy(update={"messages": [{"role": "user", "content": text}, *row.messages[1:]]}))
    return [*rows, rows[0].model_copy(update={"messages": rows[0].messages[:2]})]


def test_from_finished_conversations_to_published_adapters_without_a_server(tmp_path: Path) -> None:
    make_world(tmp_path / "model")
    write_rows(tmp_path / "mine.jsonl", asked_in_full())
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write("{cut off\n")
    plan = Plan(
        "mine",
        TOOLS,
        tmp_path / "no_toolset_and_no_server_here",
        tmp_path / "model",
        tmp_path / "work",
        replace(PROFILE, epochs=1, max_tokens=2000),
        seed=0,
        conversations=[tmp_path / "mine.jsonl"],
    )
    told = run(plan, tmp_path / "store", silent, TrainMetrics("mine"), force=True)
    assert "release 1 of mine: " in told
    assert "--seed 0 --epochs 1 --conversations mine.jsonl" in (tmp_path / "store" / "mine.manifest.json").read_text()
    dataset = json.loads((plan.work / "dataset.json").read_text())
    assert dataset["dropped"] == {"pairing": 1, "unreadable": 1}
    held_out = {json.loads(line)["id"] for line in (plan.work / "test.jsonl").read_text().splitlines()}
    assert dataset["trajectories"]["test"] == len(held_out) > 0
    for who in ("base", "new"):
        assert {row.row.split("/")[0] for row in read_outcomes(plan.work / f"outcomes_{who}.jsonl")} == held_out
    numbers = json.loads((plan.work / "report.json").read_text())
    assert {"share", "base", "low", "high", "p"} <= numbers["selection_first_turn"].keys()


def test_training_goes_on_from_what_serves_at_half_the_rate(tmp_path: Path) -> None:
    make_world(tmp_path / "model")
    write_rows(tmp_path / "mine.jsonl", asked_in_full())
    store = tmp_path / "store"
    plan = Plan(
        "mine",
        TOOLS,
        tmp_path,
        tmp_path / "model",
        tmp_path / "work",
        replace(PROFILE, epochs=1, max_tokens=2000),
        seed=0,
        conversations=[tmp_path / "mine.jsonl"],
    )
    with pytest.raises(LookupError, match=r"nothing to go on from: .*/store serves no adapters of mine"):
        continued(plan, store)
    run(plan, store, silent, TrainMetrics("mine"), force=True)
    more = continued(plan, store)
    assert more.profile.learning_rate == plan.profile.learning_rate / 2
    assert more.work != plan.work
    told = run(more, store, silent, TrainMetrics("mine"), force=True)
    assert "release 2 of mine: " in told
    manifest = AdapterStore(store).manifest("mine")
    assert manifest
    assert "--continue" in manifest.current.note
    second, first = (release.adapters.names for release in manifest.releases)
    assert [AdapterStore(store).verify(name).continues for name in (*first, *second)] == [None, None, *first]
    assert not set(first) & set(second)
    with pytest.raises(LookupError, match=r"release 2 of mine has plain LoRA, which --alora chooses"):
        continued(replace(plan, activation=[1]), store)


@pytest.fixture
def arguments(plan: Plan, tmp_path: Path) -> argparse.Namespace:
    """A command line, for a toolset that is nothing but its tools."""
    (tmp_path / "toolsets" / "mine").mkdir(parents=True)
    (tmp_path / "toolsets" / "mine" / "tools.json").write_text(json.dumps([tool.openai() for tool in TOOLS]))
    write_rows(tmp_path / "mine.jsonl", talks())
    given = {"conversations": [tmp_path / "mine.jsonl"], "toolsets_dir": tmp_path / "toolsets", "toolset": "mine", "epochs": 3}
    others = {"profile": "small", "episodes": 0, "seed": 0, "evaluated": 9, "alora": False, "joint": False, "teacher": False}
    return argparse.Namespace(**given, **others, model=tmp_path, work=tmp_path / "work")


def test_the_folder_of_a_training_is_that_of_its_conversations_and_tools(arguments: argparse.Namespace) -> None:
    plan = make_plan(arguments)
    assert (plan.conversations, [tool.name for tool in plan.tools], plan.profile.epochs) == (
        arguments.conversations,
        [tool.name for tool in TOOLS],
        3,
    )
    assert make_plan(arguments).work == plan.work
    for file in (arguments.conversations[0], arguments.toolsets_dir / "mine" / "tools.json"):
        before = make_plan(arguments).work
        file.write_text(file.read_text() + "\n")
        assert make_plan(arguments).work != before


def test_conversations_need_the_tools_that_they_are_learned_with(arguments: argparse.Namespace) -> None:
    arguments.toolset = "yours"
    with pytest.raises(LookupError, match=r"there is no .*/yours/tools\.json: a list of OpenAI tools"):
        make_plan(arguments)


@pytest.mark.parametrize("text", ["[{]", "{}x", '[{"name": "read_file"}]', '[{"function": {"name": 5}}]', "[3]"])
def test_tools_that_are_none_are_named_by_their_file(arguments: argparse.Namespace, text: str) -> None:
    (arguments.toolsets_dir / "mine" / "tools.json").write_text(text)
    with pytest.raises(LookupError, match=r"/mine/tools\.json is not a list of OpenAI tools: "):
        make_plan(arguments)
