"""Writes arguments as they are served: greedy, each word held to the conversation's own, up to where the JSON object ends.

What is served has a grammar besides, which holds it to the schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from services.shared.contracts.grounding import GROUNDING, LIKELY, Grounds
from trainer.losses import causal_of, head_cache

MAX_ARGUMENT_TOKENS = 96


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
    grounded = _Grounded([Grounds(tokenizer, prompt) for prompt in prompts], width)
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
            logits_processor=LogitsProcessorList([grounded]),
        )
    return stop.texts


class _Grounded(LogitsProcessor):  # type: ignore[misc]
    """Lowers what leads a word of the conversation away from it, as services/engine/vllm_plugin/grounding.py does."""

    def __init__(self, grounds: Sequence[Grounds], start: int) -> None:
        self._grounds, self._start = grounds, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Where nothing is kept, all are lowered alike, which changes nothing.
        lowered = scores - GROUNDING
        for row, (grounds, written) in enumerate(zip(self._grounds, input_ids[:, self._start :].tolist(), strict=True)):
            kept = grounds.leading_on(written, partial(_likely, scores[row]))
            lowered[row, kept] = scores[row, kept]
        return lowered


def _likely(logits: Tensor) -> list[int]:
    found: list[int] = logits.topk(LIKELY).indices.tolist()
    return found


class _WholeObject(StoppingCriteria):  # type: ignore[misc]
    """Stops each row when what it has written so far begins with a whole JSON object, or with something else than one."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self._tokenizer, self._start = tokenizer, start
        self.texts: list[str] = []

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        written = [self._tokenizer.decode(ids, skip_special_tokens=False) for ids in input_ids[:, self._start :].tolist()]
        ends = [object_end(text) for text in written]
        self.texts = [text[:end] if end else text for text, end in zip(written, ends, strict=True)]
        hopeless = [not "{".startswith(text[:1]) for text in written]
        return torch.tensor([end is not None or none for end, none in zip(ends, hopeless, strict=True)], device=input_ids.device)


def object_end(text: str) -> int | None:
    """Where the JSON object that `text` begins with is over; None if it is not, or there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end if isinstance(value, dict) else None
