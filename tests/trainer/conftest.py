"""A model small enough to train in a test: random weights, the toy renderer's vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from services.shared.contracts.prompts import PromptRenderer
from tests.fakes import toy_renderer
from tests.trainer.rows_of import TOOLS, call, conversation, result, turn
from trainer.attention import WHOLE
from trainer.rows import TrainRow, decisions, merged, selection_row
from trainer.trajectories import Trajectory

# Threads that wait for each other cost more than such a model takes.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def renderer() -> PromptRenderer:
    return toy_renderer()


@pytest.fixture(scope="session")
def tokenizer(renderer: PromptRenderer) -> Tokenizer:
    return renderer._tokenizer


def tiny_base() -> Any:
    torch.manual_seed(0)
    # With small weights a frozen head could not say anything clearly, whatever an adapter does below it.
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).requires_grad_(False).eval()
    model.set_attn_implementation(WHOLE)
    return model


@pytest.fixture
def base() -> Any:
    return tiny_base()


def talks() -> list[Trajectory]:
    """Six conversations, two of them with two turns, one after a failure."""
    simple = [
        conversation(turn(call("read_file", path=f"{name}.txt")), result("x"), asked=f"Show me {name}.txt", id=name)
        for name in ("a", "bb", "ccc")
    ]
    chat = conversation(asked="Hello!", id="chat")
    roots = conversation(turn(call("roots")), result("/x"), asked="where?", id="roots")
    again = conversation(
        turn(call("read_file", path="b.txt")),
        result("ENOENT"),
        turn(call("read_file", "call_2", path="a.txt")),
        result("y", "call_2"),
        failed=["call_1"],
        id="again",
    )
    return [*simple, chat, roots, again]


def selection_rows(renderer: PromptRenderer) -> list[TrainRow]:
    found = [one for row in talks() for one in decisions(row.id, row.kind, row.messages, TOOLS, row.failed)]
    return [selection_row(renderer, decision, TOOLS, "compact") for decision in found]


@pytest.fixture
def rows(renderer: PromptRenderer) -> list[TrainRow]:
    return merged(selection_rows(renderer))
