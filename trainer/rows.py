"""What a model is trained on: token ids and which of them count, one row per decision, exactly as the services write prompts.

A selection counts the tokens of the tool's name, from the first that differs from the prompt before the name to the one that
holds the closing quote. Arguments count the tokens of the whole object, the closing brace included.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from tokenizers import Tokenizer

from services.shared.contracts.adapters import PromptProfile
from services.shared.contracts.messages import normalised
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.tools import JsonObject, Tool, sha256_of
from trainer.accepted import Accepted

RowRole = Literal["selection", "arguments"]


@dataclass(frozen=True)
class Decision:
    """One thing that the assistant decided: after `messages`, `label` came next, with `arguments` when it is a tool.

    `turn` counts from 0 what the assistant did before, calls that failed included. `accepted`: what people take for right, None
    where only `arguments` are.
    """

    trajectory: str
    kind: str
    turn: int
    messages: list[JsonObject]
    label: str
    arguments: JsonObject | None
    accepted: Accepted | None = None


@dataclass(frozen=True)
class TrainRow:
    """`ids` of a prompt with what is to be learned; `targets` are the positions that count, ascending, all after the first."""

    name: str
    role: RowRole
    label: str
    ids: tuple[int, ...]
    targets: tuple[int, ...]


def decisions(
    trajectory: str,
    kind: str,
    messages: Sequence[JsonObject],
    tools: Sequence[Tool],
    mistakes: Collection[str],
    accepted: Mapping[str, Accepted] = MappingProxyType({}),
) -> list[Decision]:
    """Every decision of a conversation that is worth imitating; what is among `mistakes` is only history to the next ones.

    Of several calls in one turn the first is the decision: what is selected at once is one tool.
    """
    found: list[Decision] = []
    conversation = normalised(list(messages))
    own = [index for index, message in enumerate(conversation) if message["role"] == "assistant"]
    for turn, index in enumerate(own):
        message = conversation[index]
        call = (message.get("tool_calls") or [None])[0]
        if call is None:
            label, arguments = answer_label(tools), None
        elif call["id"] in mistakes:
            continue
        else:
            label, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        right = accepted.get(call["id"]) if call else None
        found.append(Decision(trajectory, kind, turn, conversation[:index], label, arguments, right))
    return found


def balanced(found: Sequence[Decision]) -> list[Decision]:
    """The decisions that teach selection: where one call is followed by an answer and nothing else, two in three lose the answer.

    Nearly every call is followed by an answer, so all of them together would teach to answer when in doubt; and without the
    result in it a row costs a fraction.
    """
    turns = _turns(found)
    return [
        decision
        for decision in found
        if decision.turn == 0
        or decision.arguments is not None
        or turns[decision.trajectory] > 2
        or int(sha256_of(decision.trajectory), 16) % 3 == 0
    ]


def thinned(found: Sequence[Decision], followed: int) -> list[Decision]:
    """All decisions of conversations of more than two turns and of one in `followed` of the others; of the rest the first.

    What a first turn teaches, how people say what they want, is as much as a later one teaches, for a tenth of the tokens; and
    whether there is more to do is only learned where sometimes there is.
    """
    turns = _turns(found)
    return [
        decision
        for decision in found
        if decision.turn == 0
        or turns[decision.trajectory] > 2
        or int(sha256_of(["followed", decision.trajectory]), 16) % followed == 0
    ]


def _turns(found: Sequence[Decision]) -> dict[str, int]:
    """How many turns the assistant has in each conversation, up to its last decision."""
    return {decision.trajectory: decision.turn + 1 for decision in found}


def selection_row(renderer: PromptRenderer, decision: Decision, tools: Sequence[Tool], profile: PromptProfile) -> TrainRow:
    """The row that teaches which tool comes next."""
    prefix = renderer.prefix(decision.messages, tools, profile)
    [spelled] = renderer.label_tokens(prefix, [decision.label])
    ids, before = [*prefix.head, *spelled.ids], renderer.name_prompt(prefix)
    # A token that straddles the opening quote and the name differs from the prompt, and counts.
    first = next(i for i, (token, prompt) in enumerate(zip(ids, [*before, -1], strict=False)) if token != prompt)
    return TrainRow(_name(decision), "selection", decision.label, tuple(ids), tuple(range(first, len(ids))))


def arguments_row(
    renderer: PromptRenderer, tokenizer: Tokenizer, decision: Decision, tools: Sequence[Tool], profile: PromptProfile
) -> TrainRow | None:
    """The row that teaches what to call the tool with; None where there is nothing to write."""
    tool = next((tool for tool in tools if tool.name == decision.label), None)
    if tool is None or not tool.has_parameters:
        return None
    prompt = renderer.arguments_prompt(renderer.prefix(decision.messages, tools, profile), tool.name)
    # The engine goes on from whole tokens, so what it writes is tokenised apart from the prompt.
    written = tokenizer.encode(arguments_text(decision.arguments or {}, tool), add_special_tokens=False).ids
    ids = (*prompt, *written)
    return TrainRow(_name(decision), "arguments", tool.name, ids, tuple(range(len(prompt), len(ids))))


def arguments_text(arguments: JsonObject, tool: Tool) -> str:
    """Arguments as history shows them, their keys in the order of the schema, which is the order that a grammar enforces."""
    order = {key: at for at, key in enumerate(tool.parameters.get("properties", {}))}
    ordered = dict(sorted(arguments.items(), key=lambda item: order.get(item[0], len(order))))
    return json.dumps(ordered, ensure_ascii=False)


def merged(rows: Iterable[TrainRow]) -> list[TrainRow]:
    """Rows that begin another row join it: a causal model computes the same for both, so their losses stay what they were.

    For one adapter that selects and writes, a conversation becomes a single row, since history shows calls as they are written.
    """
    kept: list[TrainRow] = []
    for row in sorted(rows, key=lambda row: (row.ids, -len(row.targets))):
        last = kept[-1] if kept else None
        # Sorted by their tokens, a row stands right before those that it begins.
        if last and row.ids[: len(last.ids)] == last.ids and row.ids != last.ids:
            kept[-1] = replace(row, targets=tuple(sorted({*last.targets, *row.targets})))
        else:
            kept.append(row)
    return kept


def _name(decision: Decision) -> str:
    return f"{decision.trajectory}/{decision.turn}"
