"""What is read with the help of what was read before is what would be read alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainer.test_losses import ACTIVATION, with_lora
from trainer.reading import Reader
from trainer.rows import TrainRow


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)


def test_a_prompt_is_read_alike_after_any_other(base: Any, rows: list[TrainRow]) -> None:
    model = with_lora(base)
    reader = Reader(model)
    prompts = [list(row.ids) for row in rows]
    prompts += [prompts[-1], prompts[-1][:-3], prompts[0], [7, 8, 9]]
    for ids in prompts:
        torch.testing.assert_close(reader.read(ids), alone(model, ids), atol=1e-4, rtol=0)


def test_branches_are_read_side_by_side_and_leave_the_prompt_as_it_was(base: Any, rows: list[TrainRow]) -> None:
    model = with_lora(base)
    reader = Reader(model)
    ids = list(rows[0].ids)
    reader.read(ids)
    for _ in range(2):
        for path, read in zip([(1, 2, 3), (4,)], reader.follow([(1, 2, 3), (4,)]), strict=True):
            expected = torch.stack([alone(model, [*ids, *path[:depth]]) for depth in range(1, len(path) + 1)])
            torch.testing.assert_close(read, expected, atol=1e-4, rtol=0)


def test_an_activated_adapter_reads_the_beginning_as_the_base_model(base: Any, rows: list[TrainRow], tokenizer: Any) -> None:
    activation = tokenizer.encode(ACTIVATION, add_special_tokens=False).ids
    model = with_lora(base, alora_invocation_tokens=activation)
    expected = [alone(model, list(row.ids)) for row in rows]
    for module in model.modules():
        if getattr(module, "lora_variant", None):
            module.lora_variant.clear()
    reader = Reader(model, activation)
    for row, wanted in zip(rows, expected, strict=True):
        torch.testing.assert_close(reader.read(row.ids), wanted, atol=1e-4, rtol=0)


def test_a_prompt_longer_than_the_context_is_an_error(base: Any) -> None:
    context = base.config.max_position_embeddings
    with pytest.raises(ValueError, match=f"longer than the model's context of {context}"):
        Reader(base).read([1] * (context + 1))


def test_only_what_is_new_is_run(base: Any) -> None:
    run: list[int] = []
    base.model.register_forward_pre_hook(lambda _, args, kwargs: run.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    reader = Reader(base)
    for ids in ([1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 3, 5, 6], [9, 9]):
        reader.read(ids)
    assert run == [4, 2, 1, 2]
