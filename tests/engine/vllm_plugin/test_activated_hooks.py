"""Where vLLM is entered: its own classes, in this process, without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services.engine.vllm_plugin import activated
from services.engine.vllm_plugin.guard import obstacle, vllm_version
from services.shared.contracts.adapters import CARD_FILE
from tests.engine.vllm_plugin.activated_cards import card

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

BLOCK = 4
ACTIVATION = [1, 2]
# The activation tokens stand at 2 and at 9.
PROMPT = [0, 0, 1, 2, 5, 5, 5, 5, 5, 1, 2, 6, 6, 6]


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything switched on, as on a GPU, and off again after the test."""
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.platforms import current_platform
    from vllm.v1.core import block_pool, kv_cache_utils
    from vllm.v1.worker.gpu.lora_utils import LoraState
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_input_batch import InputBatch

    for owner, names in {
        kv_cache_utils: ["generate_block_hash_extra_keys"],
        block_pool: ["generate_block_hash_extra_keys"],
        WorkerLoRAManager: ["_load_adapter"],
        InputBatch: ["add_request", "make_lora_inputs"],
        LoraState: ["make_lora_inputs"],
        GPUModelRunner: ["add_requests"],
    }.items():
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: False)
    activated.enable()


def test_vllm_is_as_it_was_when_this_was_written():
    assert obstacle(activated.EXPECTED | activated.EXPECTED_ON_GPU, vllm_version()) is None


def test_enabling_twice_is_enabling_once(enabled):
    from vllm.v1.core import block_pool, kv_cache_utils

    once = kv_cache_utils.generate_block_hash_extra_keys
    assert once.__wrapped__
    activated.enable()
    assert kv_cache_utils.generate_block_hash_extra_keys is once
    assert block_pool.generate_block_hash_extra_keys is once


def test_blocks_before_the_activation_point_are_the_base_models_and_the_others_nobody_elses(enabled, tmp_path):
    base, plain = hashes(None), hashes(adapter(tmp_path / "plain", None))
    one, two = (hashes(adapter(tmp_path / name, ACTIVATION)) for name in ("one", "two"))
    # Position 9 is in the third block of four.
    assert one[:2] == two[:2] == base[:2]
    assert len({one[2], two[2], base[2]}) == 3
    assert not set(plain) & {*base, *one, *two}


def test_blocks_that_decoding_fills_follow_the_prompt(enabled, tmp_path):
    one, absent = adapter(tmp_path / "one", ACTIVATION), adapter(tmp_path / "absent", [8, 8])
    # That the model writes the activation tokens itself activates nothing.
    written = [7, 7, 8, 8, 7, 7]
    assert hashes(one, written)[:2] == hashes(None, written)[:2]
    assert not set(hashes(one, written)[2:]) & set(hashes(None, written))
    assert hashes(absent, written) == hashes(None, written)


def test_an_adapter_of_the_same_name_from_another_path_shares_nothing_it_computed(enabled, tmp_path):
    old, new = adapter(tmp_path / "old", ACTIVATION, "name"), adapter(tmp_path / "new", ACTIVATION, "name")
    assert hashes(old)[:2] == hashes(new)[:2]
    assert hashes(old)[2] != hashes(new)[2]


def test_a_damaged_card_stops_the_adapter_where_it_is_loaded(enabled, tmp_path):
    from vllm.lora.worker_manager import WorkerLoRAManager

    damaged = adapter(tmp_path / "damaged", ACTIVATION)
    (tmp_path / "damaged" / CARD_FILE).write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        WorkerLoRAManager._load_adapter(SimpleNamespace(), damaged)


def test_the_first_runner_maps_each_token_by_its_own_position(enabled, tmp_path):
    """The batch of vLLM's V1 runner: prefill in chunks, decoding, a request that left and one that came back."""
    batch = batch_v1()
    requests = [
        ("activated", adapter(tmp_path / "activated", ACTIVATION, number=3), 8),
        ("absent", adapter(tmp_path / "absent", [8, 8], number=4), 0),
        ("base", None, 0),
        ("plain", adapter(tmp_path / "plain", None, number=5), 0),
    ]
    for name, lora, computed in requests:
        batch.add_request(cached_request(name, lora, computed))
    samples, tokens, adapters = batch.make_lora_inputs(np.array([4, 2, 1, 2]), np.ones(4, dtype=np.int32))
    assert tokens == (0, 3, 3, 3, 0, 0, 0, 5, 5)
    assert samples == (3, 0, 0, 5)
    assert {lora.lora_int_id for lora in adapters} == {3, 4, 5}

    batch.remove_request("activated")
    batch.condense()
    _, tokens, _ = batch.make_lora_inputs(np.array([2, 1, 1]), np.ones(3, dtype=np.int32))
    assert dict(zip(batch.req_ids, [tokens[:2], tokens[2:3], tokens[3:]], strict=True))["plain"] in ((5, 5), (5,))
    # After a preemption its blocks are gone, and it is read from the beginning, with what it has written.
    batch.add_request(cached_request("activated", requests[0][1], 0, written=[7, 7]))
    scheduled = np.array([16 if name == "activated" else 1 for name in batch.req_ids])
    _, tokens, _ = batch.make_lora_inputs(scheduled, np.ones(4, dtype=np.int32))
    first = int(scheduled[: batch.req_ids.index("activated")].sum())
    assert tokens[first : first + 16] == (0,) * 9 + (3,) * 7


def test_the_second_runner_maps_each_token_by_its_own_position(enabled, tmp_path):
    from vllm.v1.worker.gpu.lora_utils import LoraState

    one, absent = adapter(tmp_path / "one", ACTIVATION, number=3), adapter(tmp_path / "absent", [8, 8], number=4)
    rows, done = {"absent": 5, "one": 2, "base": 7}, np.zeros(8, dtype=np.int32)
    runner = runner_v2(LoraState(8), rows, done, {"one": one, "absent": absent, "base": None})
    done[[2, 5]] = 8, 3
    _, tokens, _ = runner.lora_state.make_lora_inputs(["one", "base", "absent"], np.array([2, 7, 5]), np.array([4, 2, 3]))
    assert tokens == (0, 3, 3, 3, 0, 0, 0, 0, 0)
    done[2] = 14
    samples, tokens, adapters = runner.lora_state.make_lora_inputs(["absent", "one"], np.array([5, 2]), np.array([1, 1]))
    assert (samples, tokens) == ((0, 3), (0, 3))
    assert {lora.lora_int_id for lora in adapters} == {3, 4}


def adapter(folder: Path, tokens: list[int] | None, name: str = "", number: int = 1) -> Any:
    """vLLM's reference to an adapter in the new `folder`, which holds its card alone."""
    from vllm.lora.request import LoRARequest

    folder.mkdir()
    (folder / CARD_FILE).write_text(card("tool", tokens).model_dump_json())
    return LoRARequest(name or folder.name, number, str(folder))


def hashes(lora: Any, written: Sequence[int] = ()) -> list[bytes]:
    """The block hashes of PROMPT and of what was then written, token by token."""
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    hasher = get_request_block_hasher(BLOCK, sha256)
    request = Request("id", list(PROMPT), SamplingParams(max_tokens=9), None, lora_request=lora, block_hasher=hasher)
    for token in written:
        request.append_output_token_ids(token)
    return list(request.block_hashes)


def batch_v1() -> Any:
    import torch
    from vllm.v1.worker.gpu_input_batch import InputBatch

    return InputBatch(
        max_num_reqs=8, max_model_len=64, max_num_batched_tokens=64, device=torch.device("cpu"), vocab_size=10,
        block_sizes=[BLOCK], max_num_blocks_per_req=[16],
    )  # fmt: skip


def cached_request(name: str, lora: Any, computed: int, written: list[int] | None = None) -> Any:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu_input_batch import CachedRequestState

    return CachedRequestState(
        req_id=name, prompt_token_ids=list(PROMPT), mm_features=[], sampling_params=SamplingParams(temperature=0),
        generator=None, block_ids=([],), num_computed_tokens=computed, output_token_ids=written or [], lora_request=lora,
    )  # fmt: skip


def runner_v2(state: Any, rows: dict[str, int], done: Any, loras: dict[str, Any]) -> Any:
    """What `GPUModelRunner.add_requests` itself needs of a runner, after it has added a request per adapter."""
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    nothing = SimpleNamespace(
        add_request=lambda *_, **__: None, append_block_ids=lambda *_, **__: None, apply_staged_writes=lambda: None
    )
    requests = SimpleNamespace(**vars(nothing), req_id_to_index=rows, num_computed_tokens_np=done)
    runner = SimpleNamespace(
        lora_state=state, req_states=requests, model_state=nothing, block_tables=nothing, _remove_request=lambda _: None,
        adaptive_verification=None, pooling_runner=None, encoder_cache=None, sampler=None, is_last_pp_rank=False,
    )  # fmt: skip
    new = [
        SimpleNamespace(
            req_id=name, prompt_token_ids=list(PROMPT), prefill_token_ids=list(PROMPT), prompt_len=len(PROMPT),
            sampling_params=None, num_computed_tokens=0, block_ids=([],), lora_request=lora, mm_features=[],
        )
        for name, lora in loras.items()
    ]  # fmt: skip
    GPUModelRunner.add_requests(runner, SimpleNamespace(scheduled_new_reqs=new))
    return runner
