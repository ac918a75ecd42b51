"""What counts as right, and that every decision is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from services.shared.contracts.prompts import PromptRenderer, answer_label
from tests.trainer.conftest import talks
from tests.trainer.rows_of import TOOLS
from tests.trainer.test_losses import with_lora
from trainer.evaluate import Prompts, judged, select_all, vote, write_all
from trainer.losses import split_of, target_losses
from trainer.reading import Reader
from trainer.rows import Decision, TrainRow, decisions


@pytest.fixture
def prompts(renderer: PromptRenderer, tokenizer: Tokenizer) -> Prompts:
    return Prompts(renderer, tokenizer, TOOLS, "compact")


def all_decisions() -> list[Decision]:
    return [one for row in talks() for one in decisions(row.id, row.kind, row.messages, TOOLS, row.failed)]


def decision(**arguments: Any) -> Decision:
    return Decision("t", "read", 0, [], "read_file", arguments)


@pytest.mark.parametrize(
    ("text", "valid", "exact"),
    [
        ('{"head": 2, "path": "a"}', True, True),
        ('{"path": "a", "head": 2.0}', True, True),
        ('{"path": "a", "head": 3}', True, False),
        ('{"head": 2}', False, False),
        ('{"path": "a"', False, False),
        ('{"path": "a", "head": true}', False, False),
    ],
)
def test_arguments_are_compared_as_values(text: str, valid: bool, exact: bool) -> None:
    assert judged(text, decision(path="a", head=2), TOOLS[0]) == (valid, exact)


def test_true_is_not_one() -> None:
    assert judged('{"path": "a", "head": true}', decision(path="a", head=1), TOOLS[0])[1] is False


def by_brute_force(model: Any, prompts: Prompts, messages: Any) -> dict[str, float]:
    """Every name scored to its end, alone."""
    prefix = prompts.renderer.prefix(messages, prompts.tools, "compact")
    spelled = prompts.renderer.label_tokens(prefix, [*(tool.name for tool in prompts.tools), answer_label(prompts.tools)])
    totals = []
    for label in spelled:
        ids = (*prefix.head, *label.ids)
        row = TrainRow("", "selection", label.label, ids, tuple(range(len(prefix.head), len(ids))))
        totals.append(-target_losses(model, [row], split_of(model, [row], None)).sum().item())
    shares = torch.softmax(torch.tensor(totals).double(), 0).tolist()
    return dict(zip((label.label for label in spelled), shares, strict=True))


def test_the_vote_is_that_over_all_names_spelled_out(base: Any, prompts: Prompts) -> None:
    model = with_lora(base)
    reader = Reader(model)
    for one in all_decisions():
        assert vote(reader, prompts, one.messages) == pytest.approx(by_brute_force(model, prompts, one.messages), abs=2e-4)


def test_both_evaluations_cover_every_decision(base: Any, prompts: Prompts, tokenizer: Tokenizer) -> None:
    found = all_decisions()
    outcomes = select_all(base, prompts, found)
    assert [row.row for row in outcomes] == [f"{one.trajectory}/{one.turn}" for one in found]
    assert outcomes[0].asked == "Show me a.txt"
    activation = tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids
    plain = write_all(base, prompts, outcomes, found)
    activated = write_all(base, replace(prompts, activation=activation), outcomes, found)
    with_arguments = [one.label == "read_file" for one in found]
    assert [row.written is not None for row in plain] == with_arguments
    # Without an adapter the two ways of reading a prompt are one; in a batch, who is done first is padded (token 0, "!").
    assert [(row.written or "").rstrip("!") for row in plain] == [(row.written or "").rstrip("!") for row in activated]


def test_what_cannot_be_put_to_the_model_is_an_outcome_and_wrong(base: Any, prompts: Prompts) -> None:
    long = replace(all_decisions()[0], messages=[{"role": "user", "content": "word " * 2000}])
    blind = replace(prompts, activation=[299, 298])
    for how, fault, found in (
        (prompts, "longer than the model's context", [long]),
        (blind, "activation tokens", all_decisions()[:1]),
    ):
        [outcome] = write_all(base, how, select_all(base, how, found), found)
        assert (outcome.selected, outcome.is_right, outcome.exact) == (None, False, False)
        assert fault in (outcome.error or "")
