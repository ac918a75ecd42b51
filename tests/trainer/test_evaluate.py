"""What counts as right, and what the report says."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from services.shared.contracts.prompts import PromptRenderer
from tests.trainer.conftest import talks
from tests.trainer.rows_of import TOOLS
from trainer.evaluate import Outcome, evaluate_arguments, evaluate_selection, figures, judged, object_end, table
from trainer.rows import Decision, decisions


def outcome(turn: int, gold: str, selected: str, *, exact: bool | None = None, kind: str = "read") -> Outcome:
    return Outcome(row=f"t/{turn}", kind=kind, turn=turn, gold=gold, selected=selected, sure=0.9, valid=exact, exact=exact)


def decision(**arguments: Any) -> Decision:
    return Decision("t", "read", 0, [], "read_file", arguments)


def test_an_object_ends_where_it_is_whole() -> None:
    assert object_end('{"a": "}"} and more') == len('{"a": "}"}')
    assert object_end('{"a": [1, {"b": 2}') is None
    assert object_end("[1]") is None


@pytest.mark.parametrize(
    ("text", "valid", "exact"),
    [
        ('{"head": 2, "path": "a"}', True, True),
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


def test_figures_tell_first_turns_later_turns_and_answers_apart() -> None:
    after = [
        outcome(0, "read_file", "read_file", exact=True),
        outcome(1, "summarize", "summarize"),
        outcome(0, "summarize", "summarize", kind="chat"),
        outcome(0, "summarize", "read_file", kind="outside"),
        outcome(1, "read_file", "read_file", exact=False),
    ]
    before = [row.model_copy(update={"selected": "tag", "exact": None if row.exact is None else False}) for row in after]
    numbers = figures(after, before, "summarize")
    shares = {name: (entry["right"], entry["of"]) for name, entry in numbers.items() if isinstance(entry, dict)}
    assert shares == {
        "selection_first_turn": (1, 1),
        "selection_later_turns": (2, 2),
        "later_turns_that_call": (1, 1),
        "later_turns_that_stop": (1, 1),
        "answered_in_text": (1, 1),
        "outside_the_toolset": (0, 1),
        "arguments_exact": (1, 2),
        "arguments_valid": (1, 2),
        "end_to_end": (3, 5),
    }
    assert "| end to end | 3/5 |" in table(numbers)


def test_both_evaluations_cover_every_decision(base: Any, renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    found = [one for row in talks() for one in decisions(row.id, row.kind, row.messages, TOOLS, row.failed)]
    outcomes = evaluate_selection(base, renderer, found, TOOLS, "compact")
    assert [row.row for row in outcomes] == [f"{one.trajectory}/{one.turn}" for one in found]
    activation = tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids
    plain = evaluate_arguments(base, renderer, tokenizer, outcomes, found, TOOLS, "compact")
    activated = evaluate_arguments(base, renderer, tokenizer, outcomes, found, TOOLS, "compact", activation)
    with_arguments = [one.label == "read_file" for one in found]
    assert [row.written is not None for row in plain] == with_arguments
    # Without an adapter the two ways of reading a prompt are one; in a batch, who is done first is padded (token 0, "!").
    assert [(row.written or "").rstrip("!") for row in plain] == [(row.written or "").rstrip("!") for row in activated]
