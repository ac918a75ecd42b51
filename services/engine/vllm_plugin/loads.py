"""Makes a worker of vLLM tell which adapters it loads, drops, and fails to load; vLLM itself has no metric for that."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from services.engine.vllm_plugin import events

_MANAGER = "vllm.lora.worker_manager:LRUCacheWorkerLoRAManager"
EXPECTED = {f"{_MANAGER}.add_adapter": "(self, lora_request)", f"{_MANAGER}.list_adapters": "(self)"}

_AddAdapter = Callable[[Any, Any], bool]


def install() -> None:
    """Wraps the worker's `add_adapter`, through which every adapter comes, and which makes room for it."""
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    LRUCacheWorkerLoRAManager.add_adapter = telling(LRUCacheWorkerLoRAManager.add_adapter)


def telling(add_adapter: _AddAdapter) -> _AddAdapter:
    """`add_adapter` of a worker's manager, with events."""
    names: dict[int, str] = {}

    @wraps(add_adapter)
    def told(manager: Any, lora_request: Any) -> bool:
        before = manager.list_adapters()
        # vLLM asks in every step for every adapter of the batch.
        if lora_request.lora_int_id in before:
            return add_adapter(manager, lora_request)
        started = time.perf_counter()
        try:
            added = add_adapter(manager, lora_request)
        except Exception as error:
            _tell(events.adapter_refused, lora_request.lora_name, f"it cannot be loaded: {error}")
            raise
        _tell(events.adapter_loaded, lora_request.lora_name, time.perf_counter() - started)
        names[lora_request.lora_int_id] = lora_request.lora_name
        for gone in before - manager.list_adapters():
            # What has no name here is a dummy, which vLLM warms itself up with.
            if name := names.pop(gone, None):
                _tell(events.adapter_evicted, name)
        return added

    return told


def _tell(event: Callable[..., None], *facts: Any) -> None:
    # All workers of one engine do the same; the first tells.
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        event(*facts)
