"""What is counted where, and that failures and missing rows cannot flatter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.outcomes_of import ANSWER, TOOLS, outcomes
from trainer.episodes import write_rows
from trainer.figures import Outcome, compared, figures, read_outcomes


def outcome(turn: int, gold: str, selected: str | None, *, exact: bool | None = None, kind: str = "read") -> Outcome:
    return Outcome(row=f"t/{turn}", kind=kind, turn=turn, gold=gold, selected=selected, sure=0.9, valid=exact, exact=exact)


AFTER = [
    outcome(0, "read_file", "read_file", exact=True),
    outcome(1, "summarize", "summarize"),
    outcome(0, "summarize", "summarize", kind="chat"),
    outcome(0, "summarize", "read_file", kind="outside"),
    outcome(1, "read_file", "read_file", exact=False),
]
BEFORE = [row.model_copy(update={"selected": "tag", "exact": None if row.exact is None else False}) for row in AFTER]


def test_first_turns_later_turns_and_answers_are_told_apart() -> None:
    numbers = figures(AFTER, BEFORE, "summarize")
    shares = {name: (entry["right"], entry["of"]) for name, entry in numbers.items() if isinstance(entry, dict) and "of" in entry}
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
        "end_to_end_calls": (1, 2),
        "end_to_end_answers": (2, 3),
        "end_to_end_first_turn": (2, 3),
    }
    assert numbers["per_tool"]["read_file"]["arguments_exact"]["right"] == 1


def test_a_failure_counts_as_wrong_and_stays_in_the_denominator() -> None:
    failed = AFTER[0].model_copy(update={"selected": None, "sure": 0.0, "exact": False, "valid": False, "error": "too long"})
    numbers = figures([failed, *AFTER[1:]], BEFORE, "summarize")
    for name in ("selection_first_turn", "end_to_end_first_turn", "arguments_exact"):
        assert numbers[name]["of"] == figures(AFTER, BEFORE, "summarize")[name]["of"]
    assert (numbers["selection_first_turn"]["right"], numbers["arguments_exact"]["right"]) == (0, 0)


def test_a_tool_without_held_out_rows_has_an_entry_of_nothing() -> None:
    numbers = figures(AFTER, BEFORE, "summarize", tools=["tag", "read_file"])
    assert (numbers["per_tool"]["tag"]["selection"]["of"], numbers["per_tool"]["tag"]["selection"]["high"]) == (0, 1.0)


def test_outcomes_of_no_rows_at_all_are_figures_of_nothing() -> None:
    numbers = figures([], [], "summarize", tools=TOOLS)
    assert (numbers["end_to_end"]["of"], numbers["end_to_end"]["p"], numbers["calibration_error"]) == (0, 1.0, 0.0)


def test_outcomes_of_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not of the same rows"):
        figures(AFTER, BEFORE[1:], "summarize")
    with pytest.raises(ValueError, match="not of the same rows"):
        figures(AFTER, BEFORE, "summarize", published=[BEFORE[1], BEFORE[0], *BEFORE[2:]])


def test_the_published_adapters_are_compared_on_the_same_rows() -> None:
    numbers = figures(outcomes(0.9), outcomes(0.2), ANSWER, published=outcomes(0.5))
    entry = numbers["selection_first_turn"]
    assert entry["base"] < entry["published"] < entry["share"]
    assert entry["p"] < entry["p_published"] < 0.01
    assert "published" not in compared([True], [False], [0])


def test_outcomes_written_are_outcomes_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "outcomes.jsonl", AFTER)
    assert read_outcomes(tmp_path / "outcomes.jsonl") == AFTER
    # Ends of lines that are none in JSON.
    odd = [AFTER[0].model_copy(update={"asked": "one\u2028two\x85three"})]
    write_rows(tmp_path / "odd.jsonl", odd)
    assert read_outcomes(tmp_path / "odd.jsonl") == odd
