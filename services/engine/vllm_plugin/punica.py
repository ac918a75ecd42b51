"""LoRA on CPUs by groups of rows, in place of vLLM's kernels, which copy an adapter's weights once for every token.

Those make the prefill of a LoRA prompt several times as slow as the base model's, and they give a token without an adapter
the last slot's weights when it shares a step with tokens that have one. Here a token without an adapter is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from services.engine.vllm_plugin.rows import Group, group_rows

_CPU = "vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU"
EXPECTED = {
    "vllm.platforms.cpu:CpuPlatform.get_punica_wrapper": "()",
    f"{_CPU}.__init__": "(self, max_num_batched_tokens, max_batches, device, **kwargs)",
    f"{_CPU}.update_metadata": "(self, mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)",
    f"{_CPU}._update_base_metadata": "(self, mapping, lora_index_to_id, max_loras, vocab_size)",
    f"{_CPU}.add_shrink": "(self, y, x, lora_a_stacked, scale, **kwargs)",
    f"{_CPU}.add_expand": "(self, y, x, lora_b_stacked, output_slices, offset_start=0, add_inputs=True, **kwargs)",
    f"{_CPU}.add_lora_embedding": "(self, y, x, lora_b_stacked, add_inputs=True, **kwargs)",
    f"{_CPU}.add_lora_linear": "(self, y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, *, buffer=None, **kwargs)",
    f"{_CPU}.add_lora_logits": "(self, y, x, lora_a_stacked, lora_b_stacked, scale, *, buffer=None, **kwargs)",
    f"{_CPU}.apply_lora_full_linear": "(self, y, x, weight_stacked, bias_stacked, module_enabled)",
}

Stacked = tuple[torch.Tensor, ...]


class Factors(NamedTuple):
    """One adapter's weights in one module, ready to be multiplied: `a` is inputs x ranks, `b` is ranks x outputs."""

    a: torch.Tensor
    b: torch.Tensor


def install() -> None:
    """Makes vLLM's CPU platform use the kernels of this file."""
    from vllm.platforms.cpu import CpuPlatform

    CpuPlatform.get_punica_wrapper = classmethod(lambda _: f"{__name__}.{GroupedPunicaWrapper.__name__}")


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """`PunicaWrapperCPU` with other arithmetic; the meaning of each method is the one documented there.

    vLLM asks for the same modules in every step, and tells once per step which row belongs to which slot.
    """

    def __init__(self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **kwargs: Any) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        self._token_groups: list[Group] = []
        self._sample_groups: list[Group] = []
        # By the identity of a module's tuple of weights, which is kept here too, so that no other tuple can get it.
        self._factors: dict[int, tuple[Stacked, list[Factors]]] = {}

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        self._token_groups = group_rows(self.token_lora_indices.tolist())
        self._sample_groups = group_rows(self.sampler_indices.tolist())

    def add_lora_linear(
        self, y: torch.Tensor, x: torch.Tensor, lora_a_stacked: Stacked, lora_b_stacked: Stacked,
        scale: float, output_slices: tuple[int, ...], *, buffer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if not self._token_groups:
            return
        if lora_a_stacked[0].dtype != y.dtype:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, buffer=buffer, **kwargs)
            return
        _, factors = self._factors.get(id(lora_a_stacked)) or self._join(lora_a_stacked, lora_b_stacked)
        for slot, rows in self._token_groups:
            a, b = factors[slot]
            if isinstance(rows, slice):
                y[rows].addmm_(torch.mm(x[rows], a), b, alpha=scale)
            else:
                y.index_add_(0, rows, torch.mm(torch.mm(x[rows], a), b), alpha=scale)

    def _join(self, a_stacked: Stacked, b_stacked: Stacked) -> tuple[Stacked, list[Factors]]:
        joined = a_stacked, join(a_stacked, b_stacked)
        self._factors[id(a_stacked)] = joined
        return joined

    def add_shrink(
        self, y: Sequence[torch.Tensor] | torch.Tensor, x: torch.Tensor, lora_a_stacked: Stacked, scale: float, **kwargs: Any
    ) -> None:
        x = x.view(-1, x.shape[-1])
        for out, a in zip(y, lora_a_stacked, strict=False):
            shrink(out.view(-1, out.shape[-1]), x, a, scale, self._token_groups)

    def add_expand(
        self, y: torch.Tensor, x: Sequence[torch.Tensor] | torch.Tensor, lora_b_stacked: Stacked,
        output_slices: tuple[int, ...], offset_start: int = 0, add_inputs: bool = True, **kwargs: Any,
    ) -> None:  # fmt: skip
        y = y.view(-1, y.shape[-1])
        start = offset_start
        for shrunk, b, width in zip(x, lora_b_stacked, output_slices, strict=False):
            expand(y[:, start : start + width], shrunk, b, self._token_groups, add=add_inputs)
            start += width

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        expand(y, x, lora_b_stacked, self._token_groups, add=add_inputs)

    def add_lora_logits(
        self, y: torch.Tensor, x: torch.Tensor, lora_a_stacked: torch.Tensor, lora_b_stacked: torch.Tensor,
        scale: float, *, buffer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        # For prompt_logprobs vLLM asks for rows without saying whose they are; they get the base model's output layer.
        groups = self._sample_groups if len(x) == len(self.sampler_indices) else []
        shrunk = torch.zeros((len(x), lora_b_stacked.size(-1)), dtype=torch.float32, device=x.device)
        shrink(shrunk, x, lora_a_stacked, scale, groups)
        expand(y, shrunk, lora_b_stacked, groups, add=True)


def shrink(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, scale: float, groups: list[Group]) -> None:
    """`y[rows] = scale · x[rows] @ a[slot].T`, computed in y's type. a: slots x (1 x) rank x inputs."""
    for slot, rows in groups:
        weights = a[slot].view(a.shape[-2:]).to(y.dtype)
        y[rows, : len(weights)] = scale * (x[rows].to(y.dtype) @ weights.t())


def expand(y: torch.Tensor, x: torch.Tensor, b: torch.Tensor, groups: list[Group], *, add: bool) -> None:
    """`y[rows] (+)= x[rows] @ b[slot].T`, computed in y's type. b: slots x (1 x) outputs x rank.

    The base model and the adapters may pad the outputs differently; what only one of them has is left alone.
    """
    for slot, rows in groups:
        delta = x[rows].to(y.dtype) @ b[slot].view(b.shape[-2:]).to(y.dtype).t()
        width = min(delta.shape[1], y.shape[1])
        if add:
            y[rows, :width] += delta[:, :width]
        else:
            y[rows, :width] = delta[:, :width]


def join(a_stacked: Stacked, b_stacked: Stacked) -> list[Factors]:
    """Per slot, the factors of all slices of a module (such as q, k and v) at once: two products instead of two per slice.

    `b` is block-diagonal. Its zeros are multiplied too; on CPUs that costs less than the products it saves, for one token as
    for 500. The tensors that were passed become views of the new memory, so that what vLLM writes into them later is in the
    factors at once, and nothing is held twice.
    """
    slots, ranks, outputs = len(a_stacked[0]), [a.size(2) for a in a_stacked], [b.size(2) for b in b_stacked]
    # vLLM writes adapters into these outside of inference mode too.
    with torch.inference_mode(False):
        all_a = torch.cat(a_stacked, dim=2)
        all_b = b_stacked[0].new_zeros(slots, 1, sum(outputs), sum(ranks))
        column = row = 0
        for a, b, rank, width in zip(a_stacked, b_stacked, ranks, outputs, strict=True):
            block = all_b[:, :, row : row + width, column : column + rank]
            block.copy_(b)
            a.data, b.data = all_a[:, :, column : column + rank], block
            column, row = column + rank, row + width
    return [Factors(all_a[slot, 0].t(), all_b[slot, 0].t()) for slot in range(slots)]
