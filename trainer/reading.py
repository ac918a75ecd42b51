"""Reads prompts for their next-token probabilities, and computes once what one prompt has in common with the next.

Keys and values of a beginning are the same in every prompt that begins so. Prompts in sorted order share their system prompt, and
the turns of a conversation all that came before: only what is new is run. Under an activated LoRA that holds for all before the
activation tokens, which is the base model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.losses import activation_start, causal_of


class Reader:
    """One model, and what it has read last."""

    def __init__(self, model: Any, activation: Sequence[int] | None = None) -> None:
        self._model, self._causal, self._activation = model, causal_of(model), activation
        self._cache = DynamicCache(config=self._causal.config)
        self._held: Sequence[int] = ()

    def read(self, ids: Sequence[int]) -> Tensor:
        """Natural logs of the probabilities of the token after `ids`. Shape: (vocabulary,).

        Raises:
            ValueError: `ids` are longer than the context, or lack the activation tokens.
        """
        shared = shared_part(self._model, ids, self._activation)
        # The last token is always read: its logits are what is asked for.
        kept = min(_common(self._held, ids[:shared]), len(ids) - 1)
        self._keep(kept)
        if self._activation is not None and kept < shared:
            with self._adapter_off():
                self._run(self._cache, [ids[kept:shared]])
            kept = shared
        [hidden] = self._run(self._cache, [ids[kept:]])
        self._held = ids[:shared]
        return self._log_probabilities(hidden[-1])

    def follow(self, paths: Sequence[Sequence[int]]) -> list[Tensor]:
        """The same after each token of each path that goes on from what was read last. Shapes: (path, vocabulary)."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(paths))
        width = max(map(len, paths))
        # Padded behind the real tokens, which never look there.
        known = self._log_probabilities(self._run(cache, [[*path, *[0] * (width - len(path))] for path in paths]))
        return [row[: len(path)] for row, path in zip(known, paths, strict=True)]

    def _run(self, cache: DynamicCache, rows: Sequence[Sequence[int]]) -> Tensor:
        tokens = torch.tensor([list(row) for row in rows], device=self._causal.lm_head.weight.device)
        with torch.no_grad():
            hidden: Tensor = self._causal.model(input_ids=tokens, past_key_values=cache, use_cache=True).last_hidden_state
        return hidden

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.log_softmax(self._causal.lm_head(hidden).float(), -1)

    def _keep(self, count: int) -> None:
        surplus = self._cache.get_seq_length() - count
        if count == 0:
            self._cache = DynamicCache(config=self._causal.config)
        elif surplus:
            self._cache.crop(-surplus)

    def _adapter_off(self) -> AbstractContextManager[Any]:
        off: AbstractContextManager[Any] = self._model.disable_adapter() if self._model is not self._causal else nullcontext()
        return off


def shared_part(model: Any, ids: Sequence[int], activation: Sequence[int] | None) -> int:
    """How many of the first tokens of a prompt are read alike in whatever prompt they begin.

    Raises:
        ValueError: the prompt is longer than the context, or lacks the activation tokens.
    """
    context = causal_of(model).config.max_position_embeddings
    if len(ids) > context:
        raise ValueError(f"a prompt of {len(ids)} tokens is longer than the model's context of {context}")
    return len(ids) if activation is None else activation_start(ids, activation)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
