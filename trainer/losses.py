"""The loss of a batch of rows, in two pieces: what all rows share is computed once, the rest per row.

Plain LoRA acts on every token, so the shared beginning (system, tools) runs with the adapter and takes part in the gradient.
An activated LoRA (arXiv 2504.12397) acts from the generation prompt on: all before it is the base model's, needs no gradient,
and runs with the adapter off. Both give the loss and the gradients of the plain computation, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from trainer.rows import TrainRow


@dataclass(frozen=True)
class Split:
    """`heads` tokens of each row are computed apart. `shared`: they are the same tokens in every row."""

    heads: tuple[int, ...]
    shared: bool


def split_of(model: Any, rows: Sequence[TrainRow], activation: Sequence[int] | None) -> Split:
    """Where each row is cut: after what all have in common, or before the activation tokens.

    Nowhere where activations are computed again for the gradient (see `checkpoint_gradients`).
    """
    if causal_of(model).is_gradient_checkpointing:
        return Split((0,) * len(rows), shared=True)
    if activation is not None:
        return Split(tuple(activation_start(row.ids, activation) for row in rows), shared=False)
    # The token that predicts the first target has to be in the tail.
    most = min(row.targets[0] for row in rows) - 1
    first = rows[0].ids
    common = next((at for at in range(most) if any(row.ids[at] != first[at] for row in rows)), most)
    return Split((common if len(rows) > 1 else 0,) * len(rows), shared=True)


def checkpoint_gradients(model: Any) -> None:
    """Has every layer computed again for its gradient instead of kept, in `model.train()` (arXiv 1604.06174).

    Not for an activated LoRA: layers that are computed twice cannot use keys and values that were computed once.
    """
    causal_of(model).gradient_checkpointing_enable({"use_reentrant": False})


def activation_start(ids: Sequence[int], activation: Sequence[int]) -> int:
    """Where the last occurrence of `activation` begins.

    Raises:
        ValueError: it is not there, and the adapter would silently never act.
    """
    size = len(activation)
    for start in range(len(ids) - size, -1, -1):
        if tuple(ids[start : start + size]) == tuple(activation):
            return start
    raise ValueError(f"the activation tokens {list(activation)} are not in the row")


def head_cache(model: Any, ids: Sequence[int], activation: Sequence[int]) -> DynamicCache:
    """Keys and values of all before the activation tokens of one prompt: the base model's own."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad(), _base_only(model):
        causal_of(model).model(
            input_ids=torch.tensor([list(ids[: activation_start(ids, activation)])], device=model.device), past_key_values=cache
        )
    return cache


def causal_of(model: Any) -> Any:
    """The causal language model itself, with its adapters in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _base_only(model: Any) -> AbstractContextManager[Any]:
    # A model without adapters is what it is.
    off: AbstractContextManager[Any] = model.disable_adapter() if hasattr(model, "get_base_model") else nullcontext()
    return off


def target_losses(model: Any, rows: Sequence[TrainRow], split: Split) -> Tensor:
    """Negative log-likelihood of every target of every row, in nats; rows in order, targets ascending. Shape: (targets,)."""
    causal = causal_of(model)
    device = causal.lm_head.weight.device
    tails = [list(row.ids[head:-1]) for row, head in zip(rows, split.heads, strict=True)]
    tokens, mask = _padded(tails, device, left=False)
    cache, seen, positions = _heads(model, causal, rows, split, device)
    if cache is None:
        hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
    else:
        hidden = causal.model(
            input_ids=tokens,
            past_key_values=cache,
            attention_mask=torch.cat([seen, mask], dim=1),
            position_ids=positions + torch.arange(tokens.shape[1], device=device),
        ).last_hidden_state
    pairs = [(i, target - split.heads[i] - 1, row.ids[target]) for i, row in enumerate(rows) for target in row.targets]
    where, at, wanted = (torch.tensor(column, device=device) for column in zip(*pairs, strict=True))
    # Logits over the whole vocabulary only where something is to be learned.
    logits = causal.lm_head(hidden[where, at]).float()
    return functional.cross_entropy(logits, wanted, reduction="none")


def _heads(
    model: Any, causal: Any, rows: Sequence[TrainRow], split: Split, device: torch.device
) -> tuple[DynamicCache | None, Tensor, Tensor]:
    """Keys and values of the heads, which of them are real, and the position at which each tail begins."""
    starts = torch.tensor(split.heads, device=device)[:, None]
    nothing = torch.empty(len(rows), 0, dtype=torch.long, device=device)
    if max(split.heads) == 0:
        return None, nothing, starts
    if split.shared:
        cache = DynamicCache(config=causal.config)
        causal.model(input_ids=torch.tensor([rows[0].ids[: split.heads[0]]], device=device), past_key_values=cache)
        cache.batch_repeat_interleave(len(rows))
        return cache, torch.ones(len(rows), split.heads[0], dtype=torch.long, device=device), starts
    # Padded on the left, so that heads end where tails begin.
    tokens, mask = _padded([list(row.ids[:head]) for row, head in zip(rows, split.heads, strict=True)], device, left=True)
    cache = DynamicCache(config=causal.config)
    with torch.no_grad(), _base_only(model):
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        causal.model(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache)
    return cache, mask, starts


def _padded(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[i, place], mask[i, place] = torch.tensor(row, dtype=torch.long), 1
    return tokens.to(device), mask.to(device)
