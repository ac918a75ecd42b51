"""Profiles: how much is written and how hard is trained, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.shared.contracts.adapters import PromptProfile


@dataclass(frozen=True)
class Profile:
    """Numbers of one training.

    `episodes` and `heldout` are how many a grammar writes. `argument_adapters`: one per tool, or one `shared` by all tools,
    which learns from every tool's rows how users point at things. Of conversations with one call, one in `followed` is learned
    whole, of the others only the first decision; those of more turns are learned whole. Rows longer than `max_tokens` are
    dropped. A batch has at most `batch_rows` rows and `batch_tokens` tokens, padding included. `checkpoint_steps` is the work
    that a kill can cost. `gradient_checkpointing` computes the activations of each layer a second time instead of keeping them: a
    third more work, for batches that otherwise would not fit. `eight_bit` keeps what AdamW remembers in 8 bits instead of 32,
    where bitsandbytes is installed.
    """

    episodes: int
    heldout: int
    prompt_profile: PromptProfile
    argument_adapters: Literal["shared", "per_tool"]
    followed: int
    rank: int
    alpha: int
    dropout: float
    rslora: bool
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    epochs: int
    batch_rows: int
    batch_tokens: int
    max_tokens: int
    gradient_checkpointing: bool
    eight_bit: bool
    checkpoint_steps: int = 50


PROFILES = {
    # For SmolLM2-135M on two cores; trainer/LOG.md has the measurements behind it.
    "small": Profile(
        episodes=3000,
        heldout=400,
        prompt_profile="compact",
        argument_adapters="shared",
        followed=2,
        rank=16,
        alpha=32,
        dropout=0.0,
        rslora=False,
        learning_rate=1.5e-3,
        warmup_steps=20,
        weight_decay=0.01,
        epochs=1,
        batch_rows=8,
        batch_tokens=2500,
        max_tokens=640,
        gradient_checkpointing=False,
        eight_bit=False,
    ),
    # As published for Qwen2.5-7B (arXiv 2510.00229 and its reference implementation).
    "paper": Profile(
        episodes=14000,
        heldout=1000,
        prompt_profile="full",
        argument_adapters="per_tool",
        followed=1,
        rank=32,
        alpha=64,
        dropout=0.1,
        rslora=True,
        learning_rate=5e-6,
        warmup_steps=5,
        weight_decay=0.01,
        epochs=4,
        batch_rows=16,
        batch_tokens=65536,
        max_tokens=32768,
        gradient_checkpointing=True,
        eight_bit=True,
    ),
}
