"""Full disks, tools without rows, names that resemble each other: nothing is lost silently, and nothing half is left."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool
from tests.shared.clients.test_adapter_store_faults import leave_free, mounted
from tests.trainer.conftest import talks, tiny_base
from tests.trainer.outcomes_of import ANSWER, outcomes
from tests.trainer.rows_of import TOOLS, call, conversation, result, turn
from tests.trainer.test_evaluate import by_brute_force
from tests.trainer.test_training import PROFILE, job, sha256
from tests.trainer.tiny_world import PROFILE as WORLD_PROFILE
from tests.trainer.tiny_world import make_world
from tests.trainer.tiny_world import talks as world_talks
from trainer.episodes import read_rows, write_rows
from trainer.evaluate import Prompts, select_all, vote, write_all
from trainer.figures import figures
from trainer.pipeline import Plan, jobs
from trainer.reading import Reader
from trainer.report import TOO_LONG, write_report
from trainer.rows import Decision, TrainRow, arguments_row, decisions, selection_row
from trainer.timings import read_curve
from trainer.training import Job, train, wearing
from trainer.trajectories import Trajectory

REAL = Path(".run/models/smollm2-135m-instruct")


def test_a_full_disk_costs_no_more_than_the_steps_since_the_last_checkpoint(rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))
    with mounted(tmp_path / "disk", "size=2m") as disk:

        def tick(step: int, steps: int, loss: float, batch: object) -> None:
            if step == 6:
                leave_free(disk, 2)

        with pytest.raises((OSError, RuntimeError)):
            train(tiny_base(), job(rows), PROFILE, disk, seed=0, tick=tick)
        (disk / "ballast").unlink()
        assert [path.name for path in (disk / "select.checkpoints").glob("*.pt")] == ["00000004.pt"]
        steps: list[int] = []
        folder = train(tiny_base(), job(rows), PROFILE, disk, seed=0, tick=lambda step, total, loss, batch: steps.append(step))
        assert steps[0] == 5
        assert sha256(folder) == whole
        curve = [step for step, _ in read_curve(disk / "select.curve.jsonl")]
        assert curve == list(range(1, steps[-1] + 1))


def test_a_full_disk_leaves_rows_and_reports_as_they_were(tmp_path: Path) -> None:
    many = [row.model_copy(update={"id": str(number)}) for number in range(200) for row in talks()]
    numbers = figures(outcomes(0.9), outcomes(0.2), ANSWER)
    with mounted(tmp_path / "disk", "size=2m") as disk:
        write_rows(disk / "train.jsonl", talks())
        write_report(disk, "first", ANSWER, numbers, outcomes(0.9))
        leave_free(disk, 1)
        for write in (
            lambda: write_rows(disk / "train.jsonl", many),
            lambda: write_report(disk, "second", ANSWER, numbers, outcomes(0.9)),
        ):
            with pytest.raises(OSError, match="No space left") as full:
                write()
            assert full.value.errno == errno.ENOSPC
        assert list(read_rows(disk / "train.jsonl", Trajectory)) == talks()
        assert (disk / "report.html").read_text().endswith("</html>\n")
        assert "first" in (disk / "report.md").read_text()
        assert json.loads((disk / "report.json").read_text()) == numbers
        (disk / "ballast").unlink()
        write_report(disk, "second", ANSWER, numbers, outcomes(0.9))
        assert "second" in (disk / "report.md").read_text()


def test_a_tool_with_one_row_is_trained_and_counted(
    base: Any, renderer: PromptRenderer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rare = conversation(turn(call("tag", labels=[{"n": 1}])), result("x"), asked="tag it", id="rare")
    found = [one for row in [rare, *talks()] for one in decisions(row.id, row.kind, row.messages, TOOLS, row.failed)]
    [only] = [row for one in found if one.label == "tag" and (row := arguments_row(renderer, tokenizer, one, TOOLS, "compact"))]
    folder = train(base, Job("tag", "arguments", "tag", [only]), PROFILE, tmp_path, seed=0)
    prompts = Prompts(renderer, tokenizer, TOOLS, "compact")
    model = wearing(base, folder)
    written = write_all(model, prompts, select_all(model, prompts, found), found)
    numbers = figures(written, written, "summarize", tools=[*(tool.name for tool in TOOLS), "never"])["per_tool"]
    assert {name: entry["selection"]["of"] for name, entry in numbers.items()} == {
        "read_file": 4, "tag": 1, "roots": 1, "never": 0,
    }  # fmt: skip
    assert numbers["tag"]["arguments_exact"]["of"] == 1


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    make_world(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", [row for row in world_talks() if not row.id.startswith("tag")])
    return Plan("files", TOOLS, tmp_path, tmp_path / "model", tmp_path, replace(WORLD_PROFILE, max_tokens=1000), seed=0)


@pytest.mark.parametrize("adapters", ["shared", "per_tool"])
def test_a_tool_without_rows_has_no_job_and_stops_none(plan: Plan, adapters: Any) -> None:
    made = jobs(replace(plan, profile=replace(plan.profile, argument_adapters=adapters)))
    assert [job.alias for job in made] == ["select", "joint" if adapters == "shared" else "read_file"]
    assert "tag" not in {row.label for job in made for row in job.rows}


def test_rows_that_are_too_long_are_dropped_and_counted(plan: Plan) -> None:
    plan = replace(plan, activation=[1])
    every = [row for job in jobs(plan) for row in job.rows]
    assert json.loads((plan.work / TOO_LONG).read_text()) == {}
    limit = sorted(len(row.ids) for row in every)[len(every) // 2]
    kept = [row for job in jobs(replace(plan, profile=replace(plan.profile, max_tokens=limit))) for row in job.rows]
    assert max(len(row.ids) for row in kept) == limit
    dropped = json.loads((plan.work / TOO_LONG).read_text())
    assert sum(dropped.values()) == len(every) - len(kept) > 0


ALIKE = [
    "read", "read_file", "read_file_v2", "read_files", "readFile", "READ_FILE", "r", "re", "_read", "read__file", "read-file",
    "read.file", "lire_été", "读取", "🙂", "summarize", 'say "hi"',
]  # fmt: skip


@pytest.fixture(scope="module")
def alike() -> tuple[Prompts, list[Decision]]:
    if not (REAL / "tokenizer.json").exists():
        pytest.skip("NOT TESTED, names in real tokens: the default model is not installed")
    prompts = Prompts.load(REAL, [Tool(name=name) for name in ALIKE], "compact")
    labels = [*ALIKE, "summarize_"]
    asked = [[{"role": "user", "content": f"{chr(97 + number)} " * 5}] for number in range(len(labels))]
    return prompts, [Decision(label, "read", 0, said, label, {}) for label, said in zip(labels, asked, strict=True)]


def small_model_of_real_tokens() -> Any:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=49152, initializer_range=0.3, **shape)).requires_grad_(False).eval()


@pytest.mark.real
def test_names_that_begin_one_another_are_different_rows(alike: tuple[Prompts, list[Decision]]) -> None:
    prompts, found = alike
    rows = [selection_row(prompts.renderer, one, prompts.tools, "compact") for one in found]
    for one, row in zip(found, rows, strict=True):
        spelled = prompts.tokenizer.decode([row.ids[at] for at in row.targets], skip_special_tokens=False)
        assert json.dumps(one.label, ensure_ascii=False)[1:] in spelled
        # What is learned for one name says nothing for another one: neither begins the other.
        others = [tuple(other.ids[at] for at in other.targets) for other in rows if other is not row]
        own = tuple(row.ids[at] for at in row.targets)
        assert not any(other[: len(own)] == own for other in others)


@pytest.mark.real
def test_names_that_begin_one_another_are_voted_for_apart(alike: tuple[Prompts, list[Decision]], tmp_path: Path) -> None:
    prompts, found = alike
    model = small_model_of_real_tokens()
    chances = vote(Reader(model), prompts, found[0].messages)
    assert chances == pytest.approx(by_brute_force(model, prompts, found[0].messages), abs=2e-4)
    few = [one for one in found if one.label in ("read", "read_file", "summarize", "summarize_")]
    rows = [selection_row(prompts.renderer, one, prompts.tools, "compact") for one in few]
    folder = train(
        model, Job("select", "selector", None, rows), replace(WORLD_PROFILE, epochs=80, learning_rate=1e-2), tmp_path, seed=0
    )
    assert [row.selected for row in select_all(wearing(model, folder), prompts, few)] == [one.label for one in few]
