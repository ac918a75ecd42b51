from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from services.engine.vllm_plugin.loads import telling


@dataclass
class TwoAdapters:
    """A manager with room for two, as vLLM's, which drops the one that came first."""

    loaded: list[int] = field(default_factory=list)

    def list_adapters(self) -> set[int]:
        return set(self.loaded)

    def add_adapter(self, request) -> bool:
        if request.lora_name == "broken":
            raise ValueError("rank 64 is\ngreater than 32")
        if request.lora_int_id not in self.loaded:
            self.loaded = [*self.loaded[-1:], request.lora_int_id]
        return True


def test_a_load_is_told_once_and_with_what_it_displaced(told):
    manager, add = TwoAdapters(), telling(TwoAdapters.add_adapter)
    for number, name in [(1, "one"), (1, "one"), (2, "two"), (3, "three")]:
        assert add(manager, SimpleNamespace(lora_int_id=number, lora_name=name))
    facts = [(event["event"], event["adapter"]) for event in told()]
    assert facts == [
        ("adapter_loaded", "one"),
        ("adapter_loaded", "two"),
        ("adapter_loaded", "three"),
        ("adapter_evicted", "one"),
    ]
    assert all(event["seconds"] >= 0 for event in told()[:3])


def test_a_load_that_fails_is_told_in_one_line_and_fails(told):
    with pytest.raises(ValueError, match="rank 64"):
        telling(TwoAdapters.add_adapter)(TwoAdapters(), SimpleNamespace(lora_int_id=1, lora_name="broken"))
    reason = "it cannot be loaded: rank 64 is\ngreater than 32"
    assert told() == [{"event": "adapter_refused", "adapter": "broken", "reason": reason}]
