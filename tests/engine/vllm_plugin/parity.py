"""PEFT's answers to what vLLM's `prompt_logprobs` tells: how likely each token of a prompt is, and which is the likeliest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engine.running import ROOT


class Position(NamedTuple):
    """One position of a prompt: the log-probabilities of its token and of the likeliest one, and which that is."""

    token: float
    best: float
    best_id: int


def prompts(model_dir: Path, count: int, *, tokens: int) -> list[list[int]]:
    """`count` pieces of one English text, each of another length up to `tokens`."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    ids = tokenizer((ROOT / "LICENSE").read_text())["input_ids"]
    return [ids[start : start + tokens - i % 17] for i in range(count) for start in [i * (len(ids) - tokens) // count]]


class Peft:
    """transformers and PEFT with these adapter folders, by name, in float32; "base" is none of them."""

    def __init__(self, model_dir: Path, folders: dict[str, Path]) -> None:
        # Threads that wait for each other on a busy machine take ten times as long as one.
        torch.set_num_threads(1)
        base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        # PEFT makes modules of these names, in which there must be no dot.
        self._names = {name: f"adapter{i}" for i, name in enumerate(folders)}
        first, *others = folders
        self._model = PeftModel.from_pretrained(base, folders[first], adapter_name=self._names[first])
        for name in others:
            self._model.load_adapter(folders[name], adapter_name=self._names[name])
        self._model.eval()

    @torch.inference_mode()
    def logprobs(self, name: str, prompt: list[int]) -> torch.Tensor:
        """Positions x vocabulary; row i is about token i + 1."""
        ids = torch.tensor([prompt])
        if name in self._names:
            self._model.set_adapter(self._names[name])
            logits = self._model(ids).logits
        else:
            with self._model.disable_adapter():
                logits = self._model(ids).logits
        return torch.log_softmax(logits[0, :-1].float(), dim=-1)


@dataclass
class Agreement:
    """How far vLLM is from PEFT, in log-probability, one entry per position.

    `errors` are of the token that stands there, `effects` what the adapter does to it in PEFT. `gaps` are of the positions
    where the likeliest token is another one: by how much PEFT prefers its own.
    """

    errors: list[float] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def add(self, expected: torch.Tensor, plain: torch.Tensor, tokens: list[int], answer: list[Position]) -> None:
        """One reply: `expected` and, without the adapter, `plain` are PEFT's rows, `answer` what vLLM says of `tokens`."""
        for row, plain_row, token, got in zip(expected, plain, tokens[1:], answer, strict=True):
            self.errors.append(abs(got.token - row[token].item()))
            self.effects.append(abs(row[token] - plain_row[token]).item())
            if row.argmax().item() != got.best_id:
                self.gaps.append((row.max() - row[got.best_id]).item())

    @property
    def same_best(self) -> float:
        """The share of positions with the same likeliest token."""
        return 1 - len(self.gaps) / len(self.errors)

    def __str__(self) -> str:
        errors = f"mean error {mean(self.errors):.5f}, largest {max(self.errors):.4f}, mean effect {mean(self.effects):.2f}"
        best = f"same best {self.same_best:.2%}, widest gap {max(self.gaps, default=0.0):.4f}"
        return f"{len(self.errors)} positions, {errors}, {best}"


def positions(prompt: list[int], choice: dict[str, Any]) -> tuple[list[int], list[Position]]:
    """vLLM's answer, greedy, with `prompt_logprobs`, `logprobs` and `return_tokens_as_token_ids`: prompt and reply in one, and
    what it says of each token but the first, which has no probability."""
    read = [_position(token, found) for token, found in zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)]
    reply = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
    written = [
        Position(logprob, logprob, token) for token, logprob in zip(reply, choice["logprobs"]["token_logprobs"], strict=True)
    ]
    return prompt + reply, read + written


def _position(token: int, found: dict[str, Any]) -> Position:
    best_id, best = min(found.items(), key=lambda item: item[1]["rank"])
    return Position(found[str(token)]["logprob"], best["logprob"], int(best_id.removeprefix("token_id:")))
