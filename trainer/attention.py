"""Attention for training on CPUs: the whole matrix of weights at once, as two batched matrix products.

Torch's own kernel for CPUs works in small blocks, and in bfloat16 takes two to four times as long, forward and backward, at the
lengths of training rows (trainer/LOG.md). The price is memory, which grows with the square of the length: long prompts are left
to that kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

WHOLE = "agentflux_whole"

# In keys. The weights of one row in one layer of SmolLM2-135M are 75 MB at this length.
LONGEST = 2048


def whole_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers (its `AttentionInterface`), for a mask that is added to the scores.

    `query` is (rows, heads, tokens, width), `key` and `value` are (rows, key heads, keys, width), `attention_mask` is
    (rows or 1, 1, tokens, keys). Gives (rows, tokens, heads, width), and None in place of the weights.
    """
    rows, heads, tokens, width = query.shape
    shared, keys = key.shape[1:3]
    if keys > LONGEST or dropout:
        out, none = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **more)
        return out, none
    # Heads that share a key are further rows of its product, so that no key is copied.
    scores = (query * scaling).reshape(rows, shared, -1, width) @ key.transpose(2, 3)
    masked = scores.view(rows, heads, tokens, keys) + attention_mask
    mixed = torch.softmax(masked, -1).view(rows, shared, -1, keys) @ value
    return mixed.view(query.shape).transpose(1, 2).contiguous(), None


AttentionInterface.register(WHOLE, whole_attention)
AttentionMaskInterface.register(WHOLE, eager_mask)
