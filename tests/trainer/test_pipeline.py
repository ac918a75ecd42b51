"""The driver: which adapters a plan makes, from which rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import CHATML
from tests.trainer.conftest import talks
from tests.trainer.rows_of import TOOLS
from trainer.episodes import write_rows
from trainer.pipeline import Plan, jobs
from trainer.profiles import PROFILES


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


def test_activated_adapters_learn_one_turn_a_row(plan: Plan) -> None:
    merged, apart = (jobs(replace(plan, activation=activation))[0].rows for activation in (None, [1]))
    assert len(apart) > len(merged)
