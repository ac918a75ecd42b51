"""Activated LoRA (arXiv 2504.12397): decides from which token of a prompt on an adapter acts, and which KV blocks are shared.

An adapter whose card has activation tokens acts from their last occurrence in the prompt on, as in PEFT. What lies before is
the base model's own work, so its KV blocks serve the base model and every such adapter. vLLM 0.32 has no door for that;
`enable` goes in by these:

    engine core       generate_block_hash_extra_keys      a block that ends before the point is hashed as the base model's
    worker, runner V1 InputBatch                          a token before the point is mapped to no adapter
    worker, runner V2 GPUModelRunner, LoraState           the same, on GPUs

Core and worker find the point each by itself, in the prompt and in the card that lies next to the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.shared.contracts.adapters import CARD_FILE, AdapterCard

Ints = NDArray[np.integer[Any]]
Keys = tuple[Any, ...] | None
# As both of vLLM's runners make it: the adapter of each sampled token, the adapter of each token (0: none), the adapters.
LoraInputs = tuple[tuple[int, ...], tuple[int, ...], set[Any]]

# Beyond every token: the activation point of a prompt without the activation tokens.
NEVER = sys.maxsize

# Everything of vLLM that is wrapped, whatever its signature.
_Call = Callable[..., Any]

# What `enable` relies on, for the guard of the plugin; the second runner is not looked at, nor wrapped, on CPUs.
EXPECTED = {
    "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys": "(request, start_token_idx, end_token_idx, start_mm_idx)",
    "vllm.v1.core.block_pool:generate_block_hash_extra_keys": "(request, start_token_idx, end_token_idx, start_mm_idx)",
    "vllm.lora.worker_manager:WorkerLoRAManager._load_adapter": "(self, lora_request)",
    "vllm.v1.worker.gpu_input_batch:InputBatch.add_request": "(self, request)",
    "vllm.v1.worker.gpu_input_batch:InputBatch.make_lora_inputs": "(self, num_scheduled_tokens, num_sampled_tokens)",
}
EXPECTED_ON_GPU = {
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner.add_requests": "(self, scheduler_output)",
    "vllm.v1.worker.gpu.lora_utils:LoraState.make_lora_inputs": "(self, req_ids, idx_mapping, num_scheduled_tokens)",
}


def activation_start(prompt: list[int], tokens: list[int]) -> int:
    """The first position at which an adapter with these activation tokens acts.

    0 for no tokens: plain LoRA acts everywhere. NEVER when the prompt does not contain them; what is generated does not
    count, so such a request is the base model's up to its end.
    """
    if not tokens:
        return 0
    starts = range(len(prompt) - len(tokens), -1, -1)
    return next((start for start in starts if prompt[start : start + len(tokens)] == tokens), NEVER)


def block_keys(keys: Keys, end: int, start: int) -> Keys:
    """What tells a block apart from equal tokens: `keys` of vLLM, without the adapter if the block ends before it acts.

    `end` is the position after the block's last token, `start` the activation point. Block hashes are chained, so the first
    block that keeps its adapter keeps all that follow apart.
    """
    if keys is None or end > start:
        return keys
    return tuple(key for key in keys if key[0] != "lora") or None


def acting(starts: Sequence[int], computed: Ints, scheduled: Ints) -> NDArray[np.bool_]:
    """For each token of a step, request after request, whether its adapter acts (shape: the sum of `scheduled`).

    `starts` are activation points, `computed` the tokens that earlier steps or the prefix cache have done, `scheduled` those
    of this step, each per request. So it does not matter how a prompt is cut into steps.
    """
    before = np.cumsum(scheduled) - scheduled
    positions = np.arange(scheduled.sum()) + np.repeat(computed - before, scheduled)
    acts: NDArray[np.bool_] = positions >= np.repeat(starts, scheduled)
    return acts


def activation_tokens(adapter: str) -> list[int]:
    """The activation tokens in the card of the adapter folder `adapter`; none for a plain one, or one without a card.

    A card is read once: a published adapter never changes, and may be deleted while it still serves.

    Raises:
        ValueError: the card is damaged.
    """
    try:
        return _read_card(adapter).activation_tokens or []
    except FileNotFoundError:
        return []


@cache
def _read_card(adapter: str) -> AdapterCard:
    return AdapterCard.model_validate_json((Path(adapter) / CARD_FILE).read_bytes())


def enable() -> None:
    """Switches activated LoRA on in this process of vLLM; a second time changes nothing.

    Needs LoRA kernels that leave tokens without an adapter alone (the CPU kernels of vLLM 0.32 do not, ours do). Not with
    vLLM's `--specialize-active-lora`, which counts requests with an adapter and does not expect other tokens among theirs.
    """
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.platforms import current_platform
    from vllm.v1.core import block_pool, kv_cache_utils
    from vllm.v1.worker.gpu_input_batch import InputBatch

    # Imported by name into both; the first makes the hashes, the second reports them.
    _wrap([kv_cache_utils, block_pool], "generate_block_hash_extra_keys", _sharing)
    _wrap([WorkerLoRAManager], "_load_adapter", _reading_card)
    _wrap([InputBatch], "add_request", _finding_start_v1)
    _wrap([InputBatch], "make_lora_inputs", _masking_v1)
    if not current_platform.is_cpu():
        from vllm.v1.worker.gpu.lora_utils import LoraState
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner

        _wrap([GPUModelRunner], "add_requests", _finding_starts_v2)
        _wrap([LoraState], "make_lora_inputs", _masking_v2)


def _wrap(owners: Sequence[Any], name: str, wrapper: Callable[[_Call], _Call]) -> None:
    original = getattr(owners[0], name)
    if hasattr(original, "__wrapped__"):
        return
    wrapped = wraps(original)(wrapper(original))
    for owner in owners:
        setattr(owner, name, wrapped)


def _start(request: Any) -> int:
    """The activation point of a request, in whichever of vLLM's forms (all name the prompt and the adapter alike)."""
    if request.lora_request is None:
        return 0
    return activation_start(request.prompt_token_ids or [], activation_tokens(request.lora_request.lora_path))


def _sharing(extra_keys: _Call) -> _Call:
    def shared(request: Any, start: int, end: int, mm_index: int) -> tuple[Keys, int]:
        keys, mm_index = extra_keys(request, start, end, mm_index)
        # Found once: a request is asked again for every block that decoding fills.
        if not hasattr(request, "activation_start"):
            request.activation_start = _start(request)
        return block_keys(keys, end, request.activation_start), mm_index

    return shared


def _reading_card(load: _Call) -> _Call:
    # A damaged card has to be an adapter that cannot be loaded; found later, in the middle of a step, it ends the worker.
    def loaded(manager: Any, lora_request: Any) -> Any:
        activation_tokens(lora_request.lora_path)
        return load(manager, lora_request)

    return loaded


def _finding_start_v1(add: _Call) -> _Call:
    def added(batch: Any, request: Any) -> Any:
        if request.lora_request is not None:
            vars(batch).setdefault("activation_starts", {})[request.req_id] = _start(request)
        return add(batch, request)

    return added


def _masking_v1(make: _Call) -> _Call:
    def masked(batch: Any, scheduled: Ints, sampled: Ints) -> LoraInputs:
        # A request that was left out of a step is added again, so whoever is not in this one can be forgotten.
        known = vars(batch).get("activation_starts", {})
        batch.activation_starts = {req_id: known.get(req_id, 0) for req_id in batch.req_ids}
        starts, computed = list(batch.activation_starts.values()), batch.num_computed_tokens_cpu[: batch.num_reqs]
        return _masked(make(batch, scheduled, sampled), starts, computed, scheduled, sampled)

    return masked


def _finding_starts_v2(add: _Call) -> _Call:
    def added(runner: Any, scheduler_output: Any) -> None:
        add(runner, scheduler_output)
        lora, requests = runner.lora_state, runner.req_states
        if not hasattr(lora, "activation_starts"):
            lora.activation_starts = np.zeros_like(lora.lora_ids, dtype=np.int64)
            lora.num_computed_tokens = requests.num_computed_tokens_np
        for request in scheduler_output.scheduled_new_reqs:
            lora.activation_starts[requests.req_id_to_index[request.req_id]] = _start(request)

    return added


def _masking_v2(make: _Call) -> _Call:
    def masked(lora: Any, req_ids: list[str], rows: Ints, scheduled: Ints) -> LoraInputs:
        starts, computed = lora.activation_starts[rows].tolist(), lora.num_computed_tokens[rows]
        return _masked(make(lora, req_ids, rows, scheduled), starts, computed, scheduled, np.ones_like(scheduled))

    return masked


def _masked(inputs: LoraInputs, starts: Sequence[int], computed: Ints, scheduled: Ints, sampled: Ints) -> LoraInputs:
    acts = acting(starts, computed, scheduled)
    if acts.all():
        return inputs
    of_samples, of_tokens, adapters = inputs
    # Logits are those of a request's last tokens, and these are on the same side of its activation point.
    samples_act = acts[np.cumsum(scheduled) - 1].repeat(sampled)
    return tuple(np.where(samples_act, of_samples, 0)), tuple(np.where(acts, of_tokens, 0)), adapters
