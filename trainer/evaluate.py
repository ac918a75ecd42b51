"""Step 5, evaluation: what the base model and the adapters decide on held-out conversations, row by row.

A selection is the vote of services/selector, read from the same branches of names. Arguments are greedy, grounded as they are
served and free of any grammar, so that what is served, which a grammar holds to the schema, can only be better. What is decided
counts when it is the gold one: the same label, the same JSON value or another that people accept. A decision that cannot be put
to the model counts as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.selector.labels import Node, build_trie, next_wave
from services.selector.voting import exact_vote
from services.shared.contracts.adapters import PromptProfile
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.accepted import is_accepted
from trainer.figures import Outcome, outcome_of
from trainer.reading import Reader, shared_part
from trainer.rows import Decision
from trainer.writing import write_arguments

_BATCH = 8
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Prompts:
    """How the decisions of a toolset are put to a model; an activated LoRA acts from the `activation` tokens on."""

    renderer: PromptRenderer
    tokenizer: Tokenizer
    tools: Sequence[Tool]
    profile: PromptProfile
    activation: Sequence[int] | None = None

    @classmethod
    def load(
        cls, model_dir: Path, tools: Sequence[Tool], profile: PromptProfile, activation: Sequence[int] | None = None
    ) -> Prompts:
        """With the template and the tokenizer of a model's folder."""
        tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        return cls(PromptRenderer.load(model_dir), tokenizer, tools, profile, activation)

    def arguments(self, decision: Decision) -> list[int]:
        """What the arguments of the gold tool are written after."""
        return self.renderer.arguments_prompt(self.renderer.prefix(decision.messages, self.tools, self.profile), decision.label)


def select_all(
    model: Any, prompts: Prompts, decisions: Sequence[Decision], tick: Tick = lambda done, total: None
) -> list[Outcome]:
    """The vote on each decision."""
    model.eval()
    reader = Reader(model, prompts.activation)
    outcomes = [outcome_of(decision) for decision in decisions]
    # Conversations that begin alike stand side by side, for the reader's sake.
    for done, i in enumerate(sorted(range(len(decisions)), key=lambda i: json.dumps(decisions[i].messages)), 1):
        try:
            chances = vote(reader, prompts, decisions[i].messages)
            selected = max(chances, key=lambda label: chances[label])
            found: JsonObject = {"selected": selected, "sure": chances[selected]}
        except (ValueError, AgentFluxError) as error:
            found = {"error": str(error)}
        outcomes[i] = outcomes[i].model_copy(update=found)
        tick(done, len(decisions))
    return outcomes


def vote(reader: Reader, prompts: Prompts, messages: list[JsonObject]) -> dict[str, float]:
    """The probability of each label, summing to 1.

    Raises:
        ValueError, AgentFluxError: this conversation cannot be put to this model.
    """
    prefix = prompts.renderer.prefix(messages, prompts.tools, prompts.profile)
    labels = [*(tool.name for tool in prompts.tools), answer_label(prompts.tools)]
    trie = build_trie(prompts.renderer.label_tokens(prefix, labels))
    children = trie.nodes()
    root = reader.read([*prefix.head, *trie.shared])
    known: dict[Node, dict[int, float]] = {(): {token: float(root[token]) for token in children[()]}}
    wave = 1
    while nodes := next_wave(trie, known, wave=wave):
        paths = [node for node in nodes if not any(other[: len(node)] == node for other in nodes if other != node)]
        for path, rows in zip(paths, reader.follow(paths), strict=True):
            for depth, row in enumerate(rows, 1):
                known[path[:depth]] = {token: float(row[token]) for token in children[path[:depth]]}
        wave += 1
    return exact_vote(trie, known).probabilities


def write_all(
    model: Any,
    prompts: Prompts,
    outcomes: Sequence[Outcome],
    decisions: Sequence[Decision],
    tick: Tick = lambda done, total: None,
) -> list[Outcome]:
    """The outcomes again, with the arguments that the model writes for the gold tool of each decision that has some."""
    model.eval()
    results = list(outcomes)
    by_name = {tool.name: tool for tool in prompts.tools if tool.has_parameters}
    asked: dict[int, list[int]] = {}
    for i, decision in enumerate(decisions):
        if decision.label in by_name:
            try:
                prompt = prompts.arguments(decision)
                shared_part(model, prompt, prompts.activation)
                asked[i] = prompt
            except (ValueError, AgentFluxError) as error:
                results[i] = results[i].model_copy(update={"valid": False, "exact": False, "error": str(error)})
    order = sorted(asked, key=lambda i: len(asked[i]))
    for start in range(0, len(order), _BATCH):
        group = order[start : start + _BATCH]
        texts = write_arguments(model, prompts.tokenizer, [asked[i] for i in group], prompts.activation)
        for i, text in zip(group, texts, strict=True):
            valid, exact = judged(text, decisions[i], by_name[decisions[i].label])
            results[i] = results[i].model_copy(update={"written": text, "valid": valid, "exact": exact})
        tick(min(start + _BATCH, len(order)), len(order))
    return results


def judged(text: str, decision: Decision, tool: Tool) -> tuple[bool, bool]:
    """Whether arguments satisfy the schema, and whether they are the gold ones as JSON values (1 is 1.0, but not true).

    Where people accept several values, any of them is gold, as long as the schema is satisfied.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False, False
    valid = compiled_schema(tool).is_valid(value)
    if decision.accepted is not None:
        return valid, valid and isinstance(value, dict) and is_accepted(value, decision.accepted)
    return valid, _canonical(value) == _canonical(decision.arguments)


def _canonical(value: object) -> str:
    return json.dumps(_with_integers(value), sort_keys=True)


def _with_integers(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_integers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


if __name__ == "__main__":
    # The driver imports this file.
    from trainer.__main__ import main

    raise SystemExit(main(until="evaluate"))
