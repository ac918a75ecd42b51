"""The CPU kernels against the plain arithmetic of LoRA, token by token; nothing here needs an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from services.engine.vllm_plugin.punica import GroupedPunicaWrapper

SLOTS = 3
INPUTS = 24
# vLLM's ids of the adapters in the slots; the middle one is free.
IDS = [7, None, 9]


@dataclass(frozen=True)
class Module:
    """The stacked weights of one module, as vLLM holds them."""

    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(b.shape[2] for b in self.b)


def module(*widths: int, rank: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> Module:
    random = torch.Generator().manual_seed(seed)
    a = tuple(torch.randn(SLOTS, 1, rank, INPUTS, generator=random).to(dtype) for _ in widths)
    b = tuple(torch.randn(SLOTS, 1, width, rank, generator=random).to(dtype) for width in widths)
    return Module(a, b)


def activations(tokens: int, width: int, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def wrapper(
    token_ids: list[int], sample_ids: Sequence[int] = (), kind: type[PunicaWrapperCPU] = GroupedPunicaWrapper
) -> PunicaWrapperCPU:
    """A wrapper that was told of one step."""
    made = kind(512, 64, "cpu")
    made.update_metadata(LoRAMapping(tuple(token_ids), tuple(sample_ids), is_prefill=True), IDS, SLOTS + 1, 100)
    return made


def by_token(y: torch.Tensor, x: torch.Tensor, weights: Module, ids: list[int], scale: float = 1.0) -> torch.Tensor:
    """The definition: each token by itself, in fp64."""
    rows = []
    for base, inputs, adapter in zip(y.double(), x.double(), ids, strict=True):
        slot = IDS.index(adapter) if adapter else None
        deltas = [
            inputs @ a[slot, 0].double().T @ b[slot, 0].double().T
            for a, b in zip(weights.a, weights.b, strict=True)
            if slot is not None
        ]
        rows.append(base + scale * torch.cat(deltas) if deltas else base)
    return torch.stack(rows).to(y.dtype) if rows else y.clone()


batches = st.lists(st.tuples(st.sampled_from([0, 7, 9]), st.sampled_from([1, 1, 2, 5, 17, 40])), min_size=1, max_size=8)


@settings(max_examples=60)
@given(
    batches,
    st.lists(st.sampled_from([1, 5, 16]), min_size=1, max_size=4),
    st.sampled_from([1, 8, 32]),
    st.sampled_from([1.0, 0.25]),
    st.integers(0, 9),
)
def test_every_token_gets_its_own_adapter_and_no_other(batch, widths, rank, scale, seed):
    ids = [adapter for adapter, length in batch for _ in range(length)]
    weights, x, y = (
        module(*widths, rank=rank, seed=seed),
        activations(len(ids), INPUTS),
        activations(len(ids), sum(widths), seed=2),
    )
    expected = by_token(y, x, weights, ids, scale)
    got = y.clone()
    wrapper(ids).add_lora_linear(got, x, weights.a, weights.b, scale, weights.widths)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    without = [i for i, adapter in enumerate(ids) if not adapter]
    assert torch.equal(got[without], y[without])


def test_vllms_own_kernel_lets_an_adapter_act_on_tokens_without_one():
    ids, weights, x = [7, 0], module(6), activations(2, INPUTS)
    y = torch.zeros(2, 6)
    wrapper(ids, kind=PunicaWrapperCPU).add_lora_linear(y, x, weights.a, weights.b, 1.0, weights.widths)
    assert y[1].abs().max() > 0.1, "vLLM has repaired it: the warning in punica.py's docstring is out of date"


def test_in_bfloat16_it_is_as_close_to_the_definition_as_vllms_own():
    ids, dtype = [7] * 30 + [9] * 10, torch.bfloat16
    weights, x, y = module(16, 8, dtype=dtype), activations(40, INPUTS, dtype=dtype), activations(40, 24, seed=2, dtype=dtype)
    expected, errors = by_token(y.float(), x, weights, ids), []
    for kind in (GroupedPunicaWrapper, PunicaWrapperCPU):
        got = y.clone()
        wrapper(ids, kind=kind).add_lora_linear(got, x, weights.a, weights.b, 1.0, weights.widths)
        errors.append((got.float() - expected).abs().mean())
    assert errors[0] <= errors[1] * 1.05


def test_weights_that_are_written_later_are_used_and_those_written_before_are_kept():
    ids, weights, x = [7, 7], module(4, 3), activations(2, INPUTS)
    kernels = wrapper(ids)
    before = torch.zeros(2, 7)
    kernels.add_lora_linear(before, x, weights.a, weights.b, 1.0, weights.widths)
    torch.testing.assert_close(before, by_token(torch.zeros(2, 7), x, weights, ids))

    # As vLLM sets an adapter of a smaller rank.
    fresh = module(4, 3, rank=2, seed=5)
    for old, new in zip(weights.a + weights.b, fresh.a + fresh.b, strict=True):
        old[0] = 0
        old[0, 0, : new.shape[2], : new.shape[3]].copy_(new[0, 0])
    after = torch.zeros(2, 7)
    kernels.add_lora_linear(after, x, weights.a, weights.b, 1.0, weights.widths)
    torch.testing.assert_close(after, by_token(torch.zeros(2, 7), x, fresh, ids))


def test_the_weights_of_a_module_are_joined_once_and_by_slot():
    kernels, weights = wrapper([7]), module(4, 3)
    for _ in range(3):
        kernels.add_lora_linear(torch.zeros(1, 7), activations(1, INPUTS), weights.a, weights.b, 1.0, weights.widths)
    assert len(kernels._factors) == 1
    # What was written into the slices stays in one place.
    assert weights.a[0].untyped_storage().data_ptr() == weights.a[1].untyped_storage().data_ptr()


def test_a_batch_of_the_base_model_leaves_everything_alone():
    weights, y = module(4), activations(3, 4)
    got = y.clone()
    wrapper([0, 0, 0]).add_lora_linear(got, activations(3, INPUTS), weights.a, weights.b, 1.0, weights.widths)
    assert torch.equal(got, y)


def test_before_the_first_step_nothing_acts():
    weights, y = module(4), torch.zeros(3, 4)
    GroupedPunicaWrapper(16, 4, "cpu").add_lora_linear(y, activations(3, INPUTS), weights.a, weights.b, 1.0, weights.widths)
    assert not y.any()


def test_adapters_of_another_type_than_the_model_are_converted():
    ids, weights, x = [9, 0], module(6, dtype=torch.bfloat16), activations(2, INPUTS)
    got = torch.zeros(2, 6)
    wrapper(ids).add_lora_linear(got, x, weights.a, weights.b, 1.0, weights.widths)
    torch.testing.assert_close(got, by_token(torch.zeros(2, 6), x, weights, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("add", [True, False])
def test_shrink_and_expand_by_themselves_are_the_two_halves(add):
    ids, weights, x, y = [9, 0, 7], module(6, 2), activations(3, INPUTS), activations(3, 8)
    kernels, shrunk = wrapper(ids), torch.zeros(2, 3, 8)
    kernels.add_shrink(shrunk, x, weights.a, 0.5)
    got = y.clone()
    kernels.add_expand(got, shrunk, weights.b, weights.widths, add_inputs=add)
    expected = by_token(y if add else torch.zeros(3, 8), x, weights, ids, 0.5)
    expected[1] = y[1]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_logits_belong_to_samples_and_not_to_tokens():
    weights, hidden, y = module(10), activations(2, INPUTS), activations(2, 10)
    got = y.clone()
    wrapper([7, 7, 7, 0], [0, 9]).add_lora_logits(got, hidden, weights.a[0], weights.b[0], 1.0)
    torch.testing.assert_close(got, by_token(y, hidden, weights, [0, 9]), rtol=1e-4, atol=1e-4)


def test_logits_of_rows_that_are_nobodys_are_left_alone():
    weights, y = module(10), activations(5, 10)
    got = y.clone()
    wrapper([7] * 5, [7]).add_lora_logits(got, activations(5, INPUTS), weights.a[0], weights.b[0], 1.0)
    assert torch.equal(got, y)


def test_embeddings_are_expanded_as_far_as_the_table_goes():
    ids, b = [7, 0], module(12).b[0]
    x, y = activations(2, 8), torch.zeros(2, 10)
    wrapper(ids).add_lora_embedding(y, x, b)
    torch.testing.assert_close(y[0], (x[0] @ b[0, 0].T)[:10], rtol=1e-4, atol=1e-4)
    assert not y[1].any()
