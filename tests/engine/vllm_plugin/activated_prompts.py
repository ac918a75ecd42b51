"""Conversations as our services render them, in token ids, with and without activation tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool

# `<|im_start|>assistant`, as SmolLM2's tokenizer spells it.
GENERATION_PROMPT = [1, 520, 9531]
# The end of a line before a turn: another adapter's activation tokens, which occur more often and elsewhere.
NEW_TURN = [198, 1]

_TOOLS = [Tool(name=name) for name in ("read_file", "write_file", "list_directory", "move_file")]
_SENTENCE = "please read the report of last week and move every draft about the harbour to the archive before noon"


@dataclass(frozen=True)
class Case:
    """One request of the comparison; `model` is an adapter's alias or "base"."""

    model: str
    prompt: list[int]


def conversation(renderer: PromptRenderer, seed: int, *, turns: int, words: int) -> list[int]:
    """A prompt that ends with the generation prompt, after `turns` questions of about `words` words, all but one answered."""
    draw = random.Random(seed)

    def said(role: str) -> dict[str, str]:
        return {"role": role, "content": " ".join(draw.choices(_SENTENCE.split(), k=words))}

    messages = [said("user")]
    for _ in range(turns - 1):
        messages += [said("assistant"), said("user")]
    return renderer.name_prompt(renderer.prefix(messages, _TOOLS, "compact"))


def last_occurrence(prompt: list[int], tokens: list[int]) -> int:
    """Where `tokens` begin for the last time; the straightforward way, which the code under test does not take."""
    return max(i for i in range(len(prompt)) if prompt[i : i + len(tokens)] == tokens)


def cases(renderer: PromptRenderer, models: list[str], count: int) -> list[Case]:
    """`count` requests, the models in turn: one to four turns, from nothing to a dozen tokens after the activation tokens,
    and every sixth prompt without any."""
    made = []
    for number in range(count):
        draw = random.Random(number)
        prompt = conversation(renderer, number, turns=draw.randint(1, 4), words=draw.randint(5, 30))
        activated = last_occurrence(prompt, GENERATION_PROMPT)
        if number % 6 == 5:
            first = conversation(renderer, number, turns=1, words=40)
            prompt = first[: last_occurrence(first, NEW_TURN)][10:]
        else:
            prompt = prompt[: activated + len(GENERATION_PROMPT) + draw.choice([0, 1, 2, 12])]
        made.append(Case(models[number % len(models)], prompt))
    return made
