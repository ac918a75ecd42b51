"""The driver: which adapters a plan makes, from which rows; and all of it from conversations that are finished."""

from __future__ import annotations

import argparse
import fcntl
import json
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
from trainer import pipeline
from trainer.__main__ import continued, make_plan
from trainer.episodes import read_rows, write_rows
from trainer.figures import read_outcomes
from trainer.metrics import TrainMetrics
from trainer.pipeline import Plan, jobs, prepare, run
from trainer.profiles import PROFILES
from trainer.progress import Tick, silent
from trainer.timings import TIMINGS, read_timings
from trainer.trajectories import Drop, Trajectory, drops_of


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
        command="python -m trainer --toolset mine",
    )
    assert run(plan, tmp_path / "store", silent, TrainMetrics("mine"), force=False, until="training") == (
        f"selector: {plan.work / 'select'}\njoint: {plan.work / 'joint'}\n"
    )
    assert "end to end" in run(plan, tmp_path / "store", silent, TrainMetrics("mine"), force=False, until="evaluate")
    assert not (tmp_path / "store").exists()
    told = run(plan, tmp_path / "store", silent, TrainMetrics("mine"), force=True)
    assert "release 1 of mine: " in told
    assert '"python -m trainer --toolset mine"' in (tmp_path / "store" / "mine.manifest.json").read_text()
    dataset = json.loads((plan.work / "dataset.json").read_text())
    assert dataset["dropped"] == {"pairing": 1, "unreadable": 1}
    held_out = {json.loads(line)["id"] for line in (plan.work / "test.jsonl").read_text().splitlines()}
    assert dataset["trajectories"]["test"] == len(held_out) > 0
    for who in ("base", "new"):
        assert {row.row.split("/")[0] for row in read_outcomes(plan.work / f"outcomes_{who}.jsonl")} == held_out
    numbers = json.loads((plan.work / "report.json").read_text())
    assert {"share", "base", "low", "high", "p"} <= numbers["selection_first_turn"].keys()
    spent = {one.step: one for one in read_timings(plan.work / TIMINGS)}
    assert spent["dataset"].samples == len(asked_in_full()) + 1
    for job in jobs(plan):
        lengths = [len(row.ids) for row in job.rows]
        assert (spent[f"train {job.alias}"].samples, spent[f"train {job.alias}"].tokens) == (len(lengths), sum(lengths))
    assert spent["evaluate new"].samples == len(read_outcomes(plan.work / "outcomes_new.jsonl"))


def test_a_step_that_was_cut_off_between_its_files_makes_the_missing_one(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    async def write(toolset: str, toolsets_dir: Path, files: dict[Path, Path], tick: Tick) -> None:
        made.append([target.name for target in files.values()])
        tick(1, 2)
        first = next(iter(files.values()))
        write_rows(first, talks())
        if len(made) == 1:
            raise RuntimeError("killed after the first file")
        write_rows(drops_of(first), [Drop(id="e", kind="k", rule="execution", reason="ENOENT", row_sha256="0")])

    monkeypatch.setattr(pipeline, "write_trajectories", write)
    work = tmp_path / "work"
    cut = replace(plan, work=work, profile=replace(plan.profile, episodes=3, heldout=2))
    with pytest.raises(RuntimeError, match="killed"):
        prepare(cut, silent)
    prepare(cut, silent)
    assert made == [["heldout_trajectories.jsonl", "trajectories.jsonl"], ["trajectories.jsonl"]]
    spent = {one.step: one.samples for one in read_timings(work / TIMINGS)}
    assert spent == {"queries": 3 + 2, "trajectories": 1 + 1, "dataset": len(talks()) + 1}


def test_what_did_not_happen_as_planned_is_counted_with_the_drops(plan: Plan, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("heldout.jsonl", "heldout_trajectories.jsonl"):
        write_rows(work / name, [])
    write_rows(work / "trajectories.jsonl", asked_in_full()[:20])
    drop = Drop(id="e", kind="k", rule="execution", reason="ENOENT", row_sha256="0")
    write_rows(drops_of(work / "trajectories.jsonl"), [drop])
    prepare(replace(plan, work=work), silent)
    assert json.loads((work / "dataset.json").read_text())["dropped"] == {"execution": 1}
    assert next(iter(read_rows(work / "drops.jsonl", Drop))) == drop


def test_nothing_is_trained_that_nothing_can_be_measured_on(plan: Plan, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.jsonl", talks()[:2])
    few = replace(plan, work=tmp_path / "work", conversations=[tmp_path / "few.jsonl"])
    with pytest.raises(LookupError, match=r"no conversation is held out in .*/test\.jsonl"):
        run(few, tmp_path / "store", silent, TrainMetrics("mine"), force=False)


def test_two_trainings_do_not_share_a_folder(plan: Plan, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match=f"another training is at work in {tmp_path}"):
            run(plan, tmp_path / "store", silent, TrainMetrics("mine"), force=False)


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
    assert manifest.current.note.endswith(" --continue")
    second, first = (release.adapters.names for release in manifest.releases)
    assert [AdapterStore(store).verify(name).continues for name in (*first, *second)] == [None, None, *first]
    assert not set(first) & set(second)
    with pytest.raises(LookupError, match=r"release 2 of mine has plain LoRA, which --alora chooses"):
        continued(replace(plan, activation=[1]), store)

    # One adapter of them alone; the other stays what and where it is.
    card = AdapterStore(store).verify(manifest.current.adapters.arguments["read_file"])
    with pytest.raises(LookupError, match=r"there is no adapter choose to train; there are select, joint"):
        run(continued(plan, store, ["choose"]), store, silent, TrainMetrics("mine"), force=True)
    selector_only = continued(plan, store, ["select"])
    assert selector_only.work not in (more.work, continued(plan, store).work)
    run(selector_only, store, silent, TrainMetrics("mine"), force=True)
    third = AdapterStore(store).manifest("mine")
    assert third
    assert third.current.note.endswith(" --continue select")
    assert third.current.adapters.arguments == manifest.current.adapters.arguments
    assert AdapterStore(store).verify(third.current.adapters.arguments["read_file"]) == card
    assert third.current.adapters.selector
    assert AdapterStore(store).verify(third.current.adapters.selector).continues == manifest.current.adapters.selector
    assert not (selector_only.work / "joint").exists()


@pytest.fixture
def arguments(plan: Plan, tmp_path: Path) -> argparse.Namespace:
    """A command line, for a toolset that is nothing but its tools."""
    (tmp_path / "toolsets" / "mine").mkdir(parents=True)
    (tmp_path / "toolsets" / "mine" / "tools.json").write_text(json.dumps([tool.openai() for tool in TOOLS]))
    write_rows(tmp_path / "mine.jsonl", talks())
    given = {"conversations": [tmp_path / "mine.jsonl"], "toolsets_dir": tmp_path / "toolsets", "toolset": "mine", "epochs": 3}
    others = {"profile": "small", "episodes": 0, "seed": 0, "evaluated": 9, "alora": False, "joint": False, "teacher": False}
    make_world(tmp_path)
    return argparse.Namespace(**given, **others, model=tmp_path, work=tmp_path / "work")


def test_the_folder_of_a_training_is_that_of_all_it_is_made_from(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(arguments)
    assert (plan.conversations, [tool.name for tool in plan.tools], plan.profile.epochs) == (
        arguments.conversations,
        [tool.name for tool in TOOLS],
        3,
    )
    assert make_plan(arguments).work == plan.work
    assert (
        plan.command
        == "python -m trainer --toolset mine --profile small --seed 0 --epochs 3 --evaluated 9 --conversations mine.jsonl"
    )
    folders = [plan.work]
    changes = {
        arguments.conversations[0]: ("", "\n"),
        arguments.toolsets_dir / "mine" / "tools.json": ("Reads.", "Reads a file."),
        arguments.model / "chat_template.jinja": ("assistant", "helper"),
        arguments.model / "config.json": ("{", '{"rope_theta_of_another_model": 1, '),
    }
    for file, (old, new) in changes.items():
        file.write_text(file.read_text().replace(old, new) if old else file.read_text() + new)
        folders.append(make_plan(arguments).work)
    arguments.teacher, arguments.conversations = True, []
    for model in ("a", "b"):
        monkeypatch.setenv("AGENTFLUX_TRAINER_TEACHER_MODEL", model)
        folders.append(make_plan(arguments).work)
    assert len(set(folders)) == len(folders)


def test_as_many_are_held_out_as_are_to_be_evaluated(arguments: argparse.Namespace) -> None:
    usual = make_plan(arguments)
    arguments.evaluated = 1600
    assert (usual.profile.heldout, make_plan(arguments).profile.heldout) == (400, 1600)


def test_conversations_need_the_tools_that_they_are_learned_with(arguments: argparse.Namespace) -> None:
    arguments.toolset = "yours"
    with pytest.raises(LookupError, match=r"there is no .*/yours/tools\.json: a list of OpenAI tools"):
        make_plan(arguments)


@pytest.mark.parametrize("text", ["[{]", "{}x", '[{"name": "read_file"}]', '[{"function": {"name": 5}}]', "[3]"])
def test_tools_that_are_none_are_named_by_their_file(arguments: argparse.Namespace, text: str) -> None:
    (arguments.toolsets_dir / "mine" / "tools.json").write_text(text)
    with pytest.raises(LookupError, match=r"/mine/tools\.json is not a list of OpenAI tools: "):
        make_plan(arguments)
