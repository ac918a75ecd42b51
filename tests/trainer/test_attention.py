"""The attention that CPUs train with gives what torch's own gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainer.attention import LONGEST, whole_attention

# Of a module, transformers' function only asks how many heads share a key.
MODULE: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True)


def world(rows: int, tokens: int, keys: int) -> tuple[list[Tensor], Tensor]:
    """Query, key and value of six heads over two, and a mask under which the first row has a key less."""
    torch.manual_seed(0)
    shapes = (rows, 6, tokens, 8), (rows, 2, keys, 8), (rows, 2, keys, 8)
    seen = torch.ones(rows, 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)
    seen[0, :, 1:, 0] = False
    return [torch.randn(shape, requires_grad=True) for shape in shapes], torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def both(rows: int, tokens: int, keys: int, dropout: float = 0.0) -> list[list[Tensor]]:
    """What either gives, and the gradients of what went in."""
    (query, key, value), mask = world(rows, tokens, keys)
    found = []
    for attention in (whole_attention, sdpa_attention_forward):
        torch.manual_seed(1)
        out, weights = attention(MODULE, query, key, value, mask, scaling=0.3, dropout=dropout)
        assert weights is None
        found.append([out, *torch.autograd.grad(out.square().sum(), (query, key, value))])
    return found


@pytest.mark.parametrize(("rows", "tokens", "keys"), [(3, 5, 5), (2, 4, 11), (1, 1, 7)])
def test_values_and_gradients_are_those_of_torch(rows: int, tokens: int, keys: int) -> None:
    ours, theirs = both(rows, tokens, keys)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("keys", "dropout"), [(LONGEST + 1, 0.0), (64, 0.5)])
def test_what_is_long_or_wants_dropout_is_left_to_torch(keys: int, dropout: float) -> None:
    # To the last bit, which another order of summing would not give.
    ours, theirs = both(2, 40, keys, dropout)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_other_sums_are_not_equal_to_the_last_bit() -> None:
    ours, theirs = both(2, 40, 64)
    assert not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
