"""Outcomes of held-out decisions, and the numbers that they add up to. What went wrong is not left out: it counts as wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from services.shared.contracts.tools import JsonObject
from trainer.episodes import read_rows
from trainer.rows import Decision
from trainer.statistics import calibration_error, calibration_interval, mcnemar, wilson


class Outcome(BaseModel):
    """What one model decided.

    `asked` is what the user said last. `wanted` are the gold arguments, and `written`, `valid` and `exact` concern those that the
    model writes for the gold tool; None where there are none to write. `error` says why nothing was selected or written.
    """

    row: str
    kind: str
    turn: int
    gold: str
    asked: str = ""
    wanted: JsonObject | None = None
    selected: str | None = None
    sure: float = 0.0
    written: str | None = None
    valid: bool | None = None
    exact: bool | None = None
    error: str | None = None

    @property
    def is_right(self) -> bool:
        """The label is the gold one."""
        return self.selected == self.gold

    @property
    def is_whole(self) -> bool:
        """The label is the gold one, and so are the arguments, where there are some."""
        return self.is_right and self.exact is not False


def outcome_of(decision: Decision) -> Outcome:
    """A decision before anything was tried."""
    asked = next((str(message["content"]) for message in reversed(decision.messages) if message["role"] == "user"), "")
    return Outcome(
        row=f"{decision.trajectory}/{decision.turn}",
        kind=decision.kind,
        turn=decision.turn,
        gold=decision.label,
        asked=asked,
        wanted=decision.arguments,
    )


def read_outcomes(path: Path) -> list[Outcome]:
    """Outcomes that were written before."""
    return list(read_rows(path, Outcome))


def figures(
    outcomes: Sequence[Outcome],
    before: Sequence[Outcome],
    answer: str,
    *,
    published: Sequence[Outcome] | None = None,
    tools: Iterable[str] = (),
) -> JsonObject:
    """Every number of the report. `before` are the base model's outcomes, `published` those of the adapters that serve now.

    Each share has its count, its interval, and the shares of the others on the same rows with McNemar's p. `per_tool` has an
    entry for each of `tools`, also where no held-out row calls it.

    Raises:
        ValueError: the outcomes are not of the same rows.
    """
    for other in (before, *([published] if published is not None else [])):
        if list(map(_compared, other)) != list(map(_compared, outcomes)):
            raise ValueError(f"outcomes of {len(outcomes)} and of {len(other)} rows are not of the same rows in the same order")

    def share(is_good: Callable[[Outcome], bool], chosen: Callable[[Outcome], bool]) -> JsonObject:
        where = [i for i, row in enumerate(outcomes) if chosen(row)]
        good = [[is_good(row) for row in one] for one in (outcomes, before, *([published] if published is not None else []))]
        return compared(good[0], good[1], where, *good[2:])

    def calls(row: Outcome) -> bool:
        return row.gold != answer

    def writes(row: Outcome) -> bool:
        return row.exact is not None

    right, whole, exact = (lambda row: row.is_right), (lambda row: row.is_whole), (lambda row: bool(row.exact))
    names = sorted({*tools, *(row.gold for row in outcomes if calls(row))})
    votes = [row.sure for row in outcomes], [row.is_right for row in outcomes]
    return {
        "selection_first_turn": share(right, lambda row: row.turn == 0 and calls(row)),
        "selection_later_turns": share(right, lambda row: row.turn > 0),
        "later_turns_that_call": share(right, lambda row: row.turn > 0 and calls(row)),
        "later_turns_that_stop": share(right, lambda row: row.turn > 0 and not calls(row)),
        "answered_in_text": share(right, lambda row: row.turn == 0 and not calls(row) and row.kind != "outside"),
        "outside_the_toolset": share(right, lambda row: row.turn == 0 and not calls(row) and row.kind == "outside"),
        "arguments_exact": share(exact, writes),
        "arguments_valid": share(lambda row: bool(row.valid), writes),
        "end_to_end": share(whole, lambda row: True),
        "end_to_end_calls": share(whole, calls),
        "end_to_end_answers": share(whole, lambda row: not calls(row)),
        "end_to_end_first_turn": share(whole, lambda row: row.turn == 0),
        "calibration_error": round(calibration_error(*votes), 4),
        "calibration_interval": [round(edge, 4) for edge in calibration_interval(*votes)],
        "per_tool": {
            name: {
                "selection": share(right, lambda row, name=name: row.gold == name),  # type: ignore[misc]
                "arguments_exact": share(exact, lambda row, name=name: row.gold == name and writes(row)),  # type: ignore[misc]
            }
            for name in names
        },
    }


def _compared(row: Outcome) -> tuple[str, str, bool]:
    # Also whether arguments were tried: where one was spared them, it would count as right by its selection alone.
    return row.row, row.gold, row.exact is None


def compared(
    after: Sequence[bool], before: Sequence[bool], rows: Sequence[int], published: Sequence[bool] | None = None
) -> JsonObject:
    """One share on the chosen rows, against the base model's and, where they are given, the published adapters'."""
    count = sum(after[i] for i in rows)
    low, high = wilson(count, len(rows))

    def against(name: str, p: str, other: Sequence[bool]) -> JsonObject:
        paired = mcnemar([other[i] for i in rows], [after[i] for i in rows])
        return {name: _share(sum(other[i] for i in rows), len(rows)), p: float(f"{paired:.3g}")}

    return {
        "right": count,
        "of": len(rows),
        "share": _share(count, len(rows)),
        "low": round(low, 4),
        "high": round(high, 4),
        **against("base", "p", before),
        **(against("published", "p_published", published) if published is not None else {}),
    }


def _share(count: int, total: int) -> float:
    return round(count / max(1, total), 4)
