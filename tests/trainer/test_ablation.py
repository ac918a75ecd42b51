"""Variants differ in what they say they differ in, and in nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.rows_of import TOOLS
from tests.trainer.tiny_world import PROFILE, make_world, talks
from trainer.ablation import TABLE, VARIANTS, Study, run, some, tasks
from trainer.episodes import write_rows
from trainer.training import batches


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("ablation")
    world = make_world(folder / "model")
    activation = world.prompts.tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids
    few = replace(PROFILE, epochs=2)
    return Study(world.base, world.prompts, activation, world.decisions[:24], world.decisions[24:48], few, folder / "out")


def counted(study: Study, variant: str, at: int) -> list[str]:
    """What counts in the rows of a variant's adapter, as text."""
    rows = tasks(study, variant, 0)[at].job.rows
    return [study.prompts.tokenizer.decode([row.ids[i] for i in row.targets], skip_special_tokens=False) for row in rows]


def test_only_the_decision_counts_unless_the_whole_turn_does(study: Study) -> None:
    assert any(text == '{"path": "a"}' for text in counted(study, "decoupled", 1))
    assert all(not text.startswith("<tool_call>") for text in counted(study, "decoupled", 0))
    assert all(text.startswith('<tool_call>\n{"name": "') for text in counted(study, "whole_turn", 0))
    assert '<tool_call>\n{"name": "read_file", "arguments": {"path": "a"}' in counted(study, "whole_turn", 1)


def test_conventional_rows_are_whole_calls(study: Study) -> None:
    texts = counted(study, "conventional", 0)
    assert '<tool_call>\n{"name": "read_file", "arguments": {"path": "a"}}\n</tool_call>' in texts
    assert any('"summarize", "arguments": {}}\n</tool_call>' in text for text in texts)


def test_a_joint_adapter_learns_the_rows_of_both(study: Study) -> None:
    def learned(variant: str) -> set[tuple[int, ...]]:
        """Every token that counts, with all that comes before it: rows that begin one another are merged."""
        rows = [row for task in tasks(study, variant, 0) for row in task.job.rows]
        return {row.ids[: target + 1] for row in rows for target in row.targets}

    assert learned("joint") == learned("decoupled")
    [joint] = tasks(study, "joint", 0)
    assert joint.profile.rank == 2 * study.profile.rank


def test_every_variant_takes_nearly_as_many_steps(study: Study) -> None:
    def steps(variant: str) -> int:
        return sum(len(batches(task.job.rows, task.profile, 0)) for task in tasks(study, variant, 0))

    for variant in VARIANTS:
        assert steps(variant) == pytest.approx(steps("decoupled"), rel=0.25)


def test_all_variants_run_once_and_stand_in_the_table(study: Study) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in study.out.glob("*/*") if path.is_file()}

    # What a study that was stopped has done, table included, is what the next one begins with.
    assert "\n| joint |" in run(study, ["joint"], [0])
    begun = files()
    text = run(study, VARIANTS, [0, 1])
    assert files().items() > begun.items()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == list(VARIANTS)
    assert text.startswith("24 held-out decisions, 2 seeds")
    assert "selection later turns" in text
    assert (study.out / TABLE).read_text() == text
    made = files()
    assert len([path for path in made if path.name == "outcomes.jsonl"]) == 2 * len(VARIANTS)
    assert run(study, VARIANTS, [0, 1]) == text
    assert files() == made
    # Other rows are another study, and never meet what was made from these.
    run(replace(study, learned=study.learned[:20]), [], [0])
    assert files().items() > made.items()


def test_decisions_are_of_whole_conversations_drawn_from_all_over_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", talks())
    found = some(tmp_path / "train.jsonl", TOOLS, 20)
    assert 20 <= len(found) < 22
    assert len({one.label for one in found}) == 4
    assert found == some(tmp_path / "train.jsonl", TOOLS, 20)


@pytest.mark.parametrize("followed", [None, 10**9])
def test_only_some_conversations_are_followed_or_none(tmp_path: Path, followed: int | None) -> None:
    write_rows(tmp_path / "train.jsonl", talks())
    first = some(tmp_path / "train.jsonl", TOOLS, 20, followed)
    assert len(first) == 20
    assert {one.turn for one in first} == {0}


def test_the_table_says_nothing_of_turns_that_nobody_asked_for(study: Study, tmp_path: Path) -> None:
    first = [one for one in study.heldout if one.turn == 0]
    text = run(replace(study, heldout=first, out=tmp_path), [], [0])
    assert "selection first turn" in text
    assert "later" not in text
