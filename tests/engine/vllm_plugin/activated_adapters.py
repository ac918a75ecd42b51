"""Adapters with random weights on the real base model, published as the trainer does, and PEFT's own answers with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.variants import calculate_alora_offsets
from transformers import AutoModelForCausalLM

from services.shared.contracts.adapters import CARD_FILE, CONFIG_FILE
from tests.engine.vllm_plugin.activated_cards import card

# Large enough that the wrong adapter, or the right one on the wrong tokens, is far from any rounding error.
SCALE = 0.08


@dataclass(frozen=True)
class RandomAdapter:
    """One adapter to make; without `activation` it is plain LoRA."""

    alias: str
    activation: list[int] | None = None
    seed: int = 0
    rank: int = 16


def peft_model(model_dir: Path, adapters: list[RandomAdapter]) -> PeftModel:
    """The base model with these adapters, in float32; their weights are such as bfloat16 holds exactly."""
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model: PeftModel | None = None
    for adapter in adapters:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=adapter.rank,
            lora_alpha=adapter.rank,
            target_modules="all-linear",
            alora_invocation_tokens=adapter.activation,
        )
        if model is None:
            model = get_peft_model(base, config, adapter_name=adapter.alias)
        else:
            model.add_adapter(adapter.alias, config)
        generator = torch.Generator().manual_seed(adapter.seed)
        for name, weights in model.named_parameters():
            if f".{adapter.alias}." in name:
                random = torch.randn(weights.shape, generator=generator) * SCALE
                weights.data = random.bfloat16().float()
    assert model is not None
    return model.eval().requires_grad_(False)


def publish(model: PeftModel, adapter: RandomAdapter, store: Path) -> Path:
    """The directory of `adapter` in `store`, named as published ones are; its weights are in bfloat16."""
    staging = store / ".staging"
    model.save_pretrained(staging, selected_adapters=[adapter.alias])
    config = json.loads((staging / adapter.alias / CONFIG_FILE).read_text())
    # vLLM refuses these; the card has them instead.
    config["alora_invocation_tokens"] = None
    (staging / adapter.alias / CONFIG_FILE).write_text(json.dumps(config))
    made = card(adapter.alias, adapter.activation, rank=adapter.rank, seed=adapter.seed)
    (staging / adapter.alias / CARD_FILE).write_text(made.model_dump_json())
    return (staging / adapter.alias).rename(store / made.name)


def logprobs(model: PeftModel, adapter: str | None, prompt: list[int], written: list[int]) -> torch.Tensor:
    """PEFT's log probabilities after each token of `prompt` and `written` (float32, tokens x vocabulary), as `generate` has
    them: the activation point is in the prompt, whatever is written. `adapter` None is the base model."""
    ids = torch.tensor([[*prompt, *written]])
    with torch.inference_mode():
        if adapter is None:
            with model.disable_adapter():
                logits = model.base_model(input_ids=ids).logits
        else:
            model.set_adapter(adapter)
            [to_the_end] = calculate_alora_offsets(model.peft_config, adapter, torch.tensor([prompt]))
            offsets = [to_the_end and to_the_end + len(written)]
            logits = model(input_ids=ids, alora_offsets=offsets).logits
    return logits[0].float().log_softmax(-1)
