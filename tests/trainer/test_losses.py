"""Both ways of computing less give the loss and the gradients of the plain computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from trainer.attention import WHOLE
from trainer.losses import Split, activation_start, checkpoint_gradients, split_of, target_losses
from trainer.rows import TrainRow

ACTIVATION = "<|im_start|>assistant"


def with_lora(base: Any, **more: Any) -> Any:
    torch.manual_seed(1)
    model = get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False, **more)
    )
    return model.eval()


def gradients(model: Any, loss: Tensor) -> list[Tensor]:
    params = [param for param in model.parameters() if param.requires_grad]
    return [grad.clone() for grad in torch.autograd.grad(loss, params)]


def test_a_shared_head_changes_neither_loss_nor_gradient(base: Any, rows: list[TrainRow]) -> None:
    model = with_lora(base)
    split = split_of(model, rows, None)
    assert split.heads[0] > 10
    cached = target_losses(model, rows, split)
    plain = target_losses(model, rows, Split((0,) * len(rows), shared=True))
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=0)
    for a, b in zip(gradients(model, cached.mean()), gradients(model, plain.mean()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("activated", [False, True])
def test_attention_at_once_changes_neither_loss_nor_gradient(
    activated: bool, base: Any, rows: list[TrainRow], tokenizer: Any
) -> None:
    activation = tokenizer.encode(ACTIVATION, add_special_tokens=False).ids
    rows = [row for row in rows if row.targets[0] > activation_start(row.ids, activation)]
    model = with_lora(base)
    split = split_of(model, rows, activation if activated else None)
    assert base.config._attn_implementation == WHOLE
    ours = target_losses(model, rows, split)
    our_gradients = gradients(model, ours.mean())
    base.set_attn_implementation("sdpa")
    theirs = target_losses(model, rows, split)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    for a, b in zip(our_gradients, gradients(model, theirs.mean()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_layers_that_are_computed_again_keep_less_and_change_neither_loss_nor_gradient(base: Any, rows: list[TrainRow]) -> None:
    model = with_lora(base).train()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    found = []
    for again in (False, True):
        if again:
            checkpoint_gradients(model)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = target_losses(model, rows, split_of(model, rows, None))
        found.append((losses, *gradients(model, losses.mean())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert kept[1] < kept[0] / 2


def test_rows_together_lose_what_each_loses_alone(base: Any, rows: list[TrainRow]) -> None:
    model = with_lora(base)
    alone = torch.cat([target_losses(model, [row], Split((0,), shared=True)) for row in rows])
    torch.testing.assert_close(target_losses(model, rows, split_of(model, rows, None)), alone, atol=1e-4, rtol=0)


def test_a_cached_base_head_is_what_peft_calls_an_activated_lora(base: Any, rows: list[TrainRow], tokenizer: Any) -> None:
    activation = tokenizer.encode(ACTIVATION, add_special_tokens=False).ids
    model = with_lora(base, alora_invocation_tokens=activation)
    expected = []
    for row in rows:
        hidden = model(input_ids=torch.tensor([row.ids[:-1]])).logits[0]
        wanted = torch.tensor([row.ids[target] for target in row.targets])
        expected.append(torch.nn.functional.cross_entropy(hidden[[t - 1 for t in row.targets]], wanted, reduction="none"))
    # From here on the same weights act as a plain LoRA, and the split decides where.
    for module in model.modules():
        if getattr(module, "lora_variant", None):
            module.lora_variant.clear()
    last_turns = [row for row in rows if row.targets[0] > activation_start(row.ids, activation)]
    assert last_turns
    ours = target_losses(model, last_turns, split_of(model, last_turns, activation))
    theirs = torch.cat([loss for row, loss in zip(rows, expected, strict=True) if row in last_turns])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_row_without_the_activation_tokens_is_an_error_and_not_a_silent_base_model() -> None:
    with pytest.raises(ValueError, match="activation tokens"):
        activation_start((1, 2, 3), (7, 8))
