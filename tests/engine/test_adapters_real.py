"""What the adapter store takes is what PEFT wrote and what vLLM loads, as both are installed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.local import base_model
from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import CONFIG_FILE
from services.shared.contracts.errors import AdapterRefused
from tests.adapters import card_of, publish_random, tiny_base, write_adapter
from tests.engine.running import ROOT

pytestmark = pytest.mark.real

MODEL = ROOT / ".run" / "models" / "smollm2-135m-instruct"


def vllm_refuses(config: dict[str, Any]) -> bool:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    try:
        PEFTHelper.from_dict(config).validate_legal(LoRAConfig(max_lora_rank=64))
    except (ValueError, TypeError):
        return True
    return False


@pytest.mark.parametrize("fields", [
    {"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"layer_replication": [[0, 1]]},
    {"alora_invocation_tokens": [1, 2]}, {"use_qalora": True}, {"use_bdlora": {"nblocks": 2}}, {"r": 0}, {"target_modules": None},
    *({"init_lora_weights": init} for init in ("pissa", "pissa_niter_4", "olora", "corda", "loftq")),
], ids=str)  # fmt: skip
def test_what_vllm_refuses_is_not_published(tmp_path, fields):
    outcome = publish_config(tmp_path, fields)
    if "target_modules" not in fields:
        assert vllm_refuses(outcome[0])
    assert outcome[1] is not None


@pytest.mark.parametrize("fields", [
    {}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 32}}, {"layers_to_transform": [0]},
    *({"init_lora_weights": init} for init in (True, False, "gaussian", "eva", "orthogonal")),
], ids=str)  # fmt: skip
def test_what_is_published_vllm_takes(tmp_path, fields):
    config, refused = publish_config(tmp_path, fields)
    assert refused is None
    assert not vllm_refuses(config)


def publish_config(tmp_path: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """PEFT's own config with these fields, and why it was not published."""
    from peft import LoraConfig

    base = tiny_base(tmp_path / "base")
    folder = write_adapter(tmp_path / "adapter", base)
    card = card_of(folder, base)
    LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj"]).save_pretrained(str(folder))
    config = json.loads((folder / CONFIG_FILE).read_text()) | fields
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (tmp_path / "store").mkdir()
    try:
        AdapterStore(tmp_path / "store").publish(folder, card.model_copy(update={"files": hashes_of(folder)}))
    except AdapterRefused as error:
        return config, error.message
    return config, None


def test_a_random_adapter_is_one_that_peft_and_vllm_load_whole_and_that_changes_the_answer(tmp_path):
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    base_model.prepare(MODEL, say=lambda text: None)
    (tmp_path / "store").mkdir()
    store = AdapterStore(tmp_path / "store")
    published = store.root / publish_random(store, MODEL, tmp_path / "adapter", rank=16)

    modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    helper = PEFTHelper.from_local_dir(str(published), None)
    loaded = LoRAModel.from_local_checkpoint(str(published), modules, helper, lora_model_id=1, device="cpu")
    assert len(loaded.loras) == 30 * 7

    tokens = torch.arange(100, 130).unsqueeze(0)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.inference_mode():
        before = model(tokens).logits
        adapted = PeftModel.from_pretrained(model, str(published))
        change = (adapted(tokens).logits - before).abs().mean() / before.abs().mean()
    weights = get_peft_model_state_dict(adapted)
    assert len(weights) == 2 * 30 * 7
    for name, lora in loaded.loras.items():
        assert torch.equal(weights[f"base_model.model.{name}.lora_A.weight"].bfloat16(), lora.lora_a.bfloat16())
        assert torch.equal(weights[f"base_model.model.{name}.lora_B.weight"].bfloat16(), lora.lora_b.bfloat16())
    assert 0.005 < change < 0.5


def test_what_peft_saves_can_be_published(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    base = tiny_base(tmp_path / "base")
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(base))
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").unlink()
    (tmp_path / "store").mkdir()
    store = AdapterStore(tmp_path / "store")
    assert store.publish(tmp_path / "saved", card_of(tmp_path / "saved", base))
