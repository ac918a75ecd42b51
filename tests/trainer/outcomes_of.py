"""Outcomes of a model that is right as often as wanted, for tests of what is made of them."""

from __future__ import annotations

import random

from trainer.figures import Outcome

ANSWER = "summarize"
TOOLS = ("list_files", "read_file", "tag")


def outcomes(skill: float, *, rows: int = 120, seed: int = 0) -> list[Outcome]:
    """`rows` decisions, each of them right with the probability `skill`: selection and arguments apart."""
    dice = random.Random(f"{skill}/{seed}")
    return [_outcome(number, skill, dice) for number in range(rows)]


def _outcome(number: int, skill: float, dice: random.Random) -> Outcome:
    turn, gold = number // 4 % 2, [*TOOLS, ANSWER][number % 4]
    labels = [*TOOLS, ANSWER]
    selected = gold if dice.random() < skill else labels[(labels.index(gold) + dice.randrange(1, 4)) % 4]
    exact = dice.random() < skill if gold in TOOLS[1:] else None
    return Outcome(
        row=f"{number // 8}.{number % 4}/{turn}",
        kind="outside" if number % 16 == 3 else "read",
        turn=turn,
        gold=gold,
        asked=f"question {number}",
        wanted={"path": "a"} if gold != ANSWER else None,
        selected=selected,
        sure=skill,
        written=None if exact is None else "{}",
        valid=None if exact is None else True,
        exact=exact,
    )
