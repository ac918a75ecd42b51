"""Step 5, evaluation: what the base model and the adapters decide on held-out conversations, row by row, and the numbers.

A selection is the exact vote: the probability that the model writes a label's name, over that of all labels. Arguments are
greedy and free of any grammar, so that what is served, which a grammar holds to the schema, can only be better. An answer
counts when it is the gold one: the same label, the same JSON value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from tokenizers import Tokenizer
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from services.shared.contracts.adapters import PromptProfile
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.losses import causal_of, head_cache, split_of, target_losses
from trainer.rows import Decision, TrainRow
from trainer.statistics import calibration_error, mcnemar, wilson

MAX_ARGUMENT_TOKENS = 96
_BATCH = 8


class Outcome(BaseModel):
    """What one model decided. `written` and `exact` concern arguments given the gold tool; None where there are none."""

    row: str
    kind: str
    turn: int
    gold: str
    selected: str | None = None
    sure: float = 0.0
    written: str | None = None
    valid: bool | None = None
    exact: bool | None = None

    @property
    def is_right(self) -> bool:
        """The label is the gold one."""
        return self.selected == self.gold


def outcome_of(decision: Decision) -> Outcome:
    """A decision before anything was tried."""
    return Outcome(row=f"{decision.trajectory}/{decision.turn}", kind=decision.kind, turn=decision.turn, gold=decision.label)


def vote(
    model: Any,
    renderer: PromptRenderer,
    messages: list[JsonObject],
    tools: Sequence[Tool],
    profile: PromptProfile,
    activation: Sequence[int] | None = None,
) -> dict[str, float]:
    """The probability of each label, summing to 1, as services/selector computes it from one-token scores."""
    prefix = renderer.prefix(messages, tools, profile)
    spelled = renderer.label_tokens(prefix, [*(tool.name for tool in tools), answer_label(tools)])
    start = len(prefix.head) + _shared_length([label.ids for label in spelled])
    rows = []
    for label in spelled:
        ids = (*prefix.head, *label.ids)
        rows.append(TrainRow(label.label, "selection", label.label, ids, tuple(range(start, len(ids)))))
    with torch.no_grad():
        losses = target_losses(model, rows, split_of(rows, activation))
    totals = torch.stack([part.sum() for part in torch.split(losses, [len(row.targets) for row in rows])])
    return dict(zip((row.label for row in rows), torch.softmax(-totals.double(), 0).tolist(), strict=True))


def _shared_length(spellings: Sequence[Sequence[int]]) -> int:
    shortest = min(map(len, spellings))
    return next((at for at in range(shortest - 1) if len({ids[at] for ids in spellings}) > 1), shortest - 1)


def write_arguments(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], activation: Sequence[int] | None = None
) -> list[str]:
    """Greedy continuations of argument prompts, each up to where its first JSON object ends."""
    if activation is not None:
        return [_continued(model, tokenizer, [prompt], head_cache(model, prompt, activation))[0] for prompt in prompts]
    return _continued(model, tokenizer, prompts, None)


def _continued(model: Any, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], cache: DynamicCache | None) -> list[str]:
    causal = causal_of(model)
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    stop = _WholeObject(tokenizer, width)
    with torch.no_grad():
        causal.generate(
            tokens.to(causal.device),
            attention_mask=mask.to(causal.device),
            past_key_values=cache,
            max_new_tokens=MAX_ARGUMENT_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([stop]),
        )
    return stop.texts


class _WholeObject(StoppingCriteria):  # type: ignore[misc]
    """Stops each row when what it has written so far begins with a whole JSON object."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self._tokenizer, self._start = tokenizer, start
        self.texts: list[str] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        written = [self._tokenizer.decode(ids, skip_special_tokens=False) for ids in input_ids[:, self._start :].tolist()]
        ends = [object_end(text) for text in written]
        self.texts = [text[:end] if end else text for text, end in zip(written, ends, strict=True)]
        return torch.tensor([end is not None for end in ends], device=input_ids.device)


def object_end(text: str) -> int | None:
    """Where the JSON object that `text` begins with is over; None if it is not, or there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end if isinstance(value, dict) else None


def evaluate_selection(
    model: Any,
    renderer: PromptRenderer,
    decisions: Sequence[Decision],
    tools: Sequence[Tool],
    profile: PromptProfile,
    activation: Sequence[int] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """The vote on each decision."""
    model.eval()
    outcomes = []
    for done, decision in enumerate(decisions, 1):
        chances = vote(model, renderer, decision.messages, tools, profile, activation)
        selected = max(chances, key=lambda label: chances[label])
        outcomes.append(outcome_of(decision).model_copy(update={"selected": selected, "sure": chances[selected]}))
        tick(done, len(decisions))
    return outcomes


def evaluate_arguments(
    model: Any,
    renderer: PromptRenderer,
    tokenizer: Tokenizer,
    outcomes: Sequence[Outcome],
    decisions: Sequence[Decision],
    tools: Sequence[Tool],
    profile: PromptProfile,
    activation: Sequence[int] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """The outcomes again, with the arguments that the model writes for the gold tool of each decision that has some."""
    model.eval()
    by_name = {tool.name: tool for tool in tools}
    prompts = {
        i: renderer.arguments_prompt(renderer.prefix(decision.messages, tools, profile), decision.label)
        for i, decision in enumerate(decisions)
        if decision.label in by_name and by_name[decision.label].has_parameters
    }
    results = list(outcomes)
    order = sorted(prompts, key=lambda i: len(prompts[i]))
    for start in range(0, len(order), _BATCH):
        group = order[start : start + _BATCH]
        for i, text in zip(group, write_arguments(model, tokenizer, [prompts[i] for i in group], activation), strict=True):
            valid, exact = judged(text, decisions[i], by_name[decisions[i].label])
            results[i] = results[i].model_copy(update={"written": text, "valid": valid, "exact": exact})
        tick(min(start + _BATCH, len(order)), len(order))
    return results


def judged(text: str, decision: Decision, tool: Tool) -> tuple[bool, bool]:
    """Whether arguments satisfy the schema, and whether they are the gold ones as JSON values (1 is 1.0, but not true)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False, False
    return compiled_schema(tool).is_valid(value), _canonical(value) == _canonical(decision.arguments)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def figures(outcomes: Sequence[Outcome], before: Sequence[Outcome], answer: str) -> JsonObject:
    """Every number of the report, each with its count, interval, the base model's share on the same rows and McNemar's p."""
    first = [i for i, row in enumerate(outcomes) if row.turn == 0 and row.gold != answer]
    later = [i for i, row in enumerate(outcomes) if row.turn > 0]
    stops = [i for i in later if outcomes[i].gold == answer]
    tools = [i for i in later if outcomes[i].gold != answer]
    plain = [i for i, row in enumerate(outcomes) if row.turn == 0 and row.gold == answer]
    written = [i for i, row in enumerate(outcomes) if row.exact is not None]

    def right(rows: Sequence[Outcome]) -> list[bool]:
        return [row.is_right for row in rows]

    def whole(rows: Sequence[Outcome]) -> list[bool]:
        return [row.is_right and row.exact is not False for row in rows]

    return {
        "selection_first_turn": compared(right(outcomes), right(before), first),
        "selection_later_turns": compared(right(outcomes), right(before), later),
        "later_turns_that_call": compared(right(outcomes), right(before), tools),
        "later_turns_that_stop": compared(right(outcomes), right(before), stops),
        "answered_in_text": compared(right(outcomes), right(before), [i for i in plain if outcomes[i].kind != "outside"]),
        "outside_the_toolset": compared(right(outcomes), right(before), [i for i in plain if outcomes[i].kind == "outside"]),
        "arguments_exact": compared([bool(row.exact) for row in outcomes], [bool(row.exact) for row in before], written),
        "arguments_valid": compared([bool(row.valid) for row in outcomes], [bool(row.valid) for row in before], written),
        "end_to_end": compared(whole(outcomes), whole(before), range(len(outcomes))),
        "calibration_error": round(calibration_error([row.sure for row in outcomes], right(outcomes)), 4),
    }


def compared(after: Sequence[bool], before: Sequence[bool], rows: Sequence[int]) -> JsonObject:
    """One share, on the chosen rows."""
    count, base = sum(after[i] for i in rows), sum(before[i] for i in rows)
    low, high = wilson(count, len(rows))
    return {
        "right": count,
        "of": len(rows),
        "share": round(count / max(1, len(rows)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "base": round(base / max(1, len(rows)), 4),
        "p": float(f"{mcnemar([before[i] for i in rows], [after[i] for i in rows]):.3g}"),
    }


def table(numbers: JsonObject) -> str:
    """The figures in Markdown."""
    lines = ["| | right | share | 95 % interval | base model | McNemar p |", "|---|---|---|---|---|---|"]
    for name, entry in numbers.items():
        if isinstance(entry, dict):
            shares = f"{entry['share']:.1%} | {entry['low']:.1%} to {entry['high']:.1%} | {entry['base']:.1%}"
            lines.append(f"| {name.replace('_', ' ')} | {entry['right']}/{entry['of']} | {shares} | {entry['p']:.2g} |")
    return "\n".join([*lines, "", f"Expected calibration error of the vote: {numbers['calibration_error']:.1%}", ""])


def read_outcomes(path: Path) -> list[Outcome]:
    """Outcomes that were written before."""
    return [Outcome.model_validate_json(line) for line in path.read_text().splitlines()]
