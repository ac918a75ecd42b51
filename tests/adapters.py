"""Small adapters with random weights, in PEFT's own layout: for any Llama-like base model, and good enough for a real vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file

from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterCard
from services.shared.contracts.base_model import base_fingerprint

TINY = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "dtype": "bfloat16",
}  # fmt: skip
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Tensors = dict[str, NDArray[np.float32]]


def tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """A base model of a kilobyte, in a new `folder`: enough to train for, too little to run."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    weights = {"model.embed_tokens.weight": np.random.default_rng(seed).standard_normal((64, 16), np.float32)}
    write_tensors(folder / "model.safetensors", weights)
    return folder


def write_adapter(
    folder: Path, base: Path, *, rank: int = 8, alpha: float = 16, seed: int = 0, scale: float = 0.02, dtype: str = "bfloat16"
) -> Path:
    """An adapter of all linear layers for the model in `base`, in a new `folder`, which is returned.

    The standard deviation of B is `scale`: at 0 the adapter changes nothing, at 0.02 it changes logits visibly. `dtype` is
    bfloat16 or float32.
    """
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.name, "r": rank, "lora_alpha": alpha,
        "lora_dropout": 0.0, "target_modules": list(TARGETS), "bias": "none", "inference_mode": True,
    }  # fmt: skip
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1))
    write_tensors(folder / WEIGHTS_FILE, random_weights(base, rank=rank, seed=seed, scale=scale), dtype)
    return folder


def random_weights(base: Path, *, rank: int, seed: int, scale: float) -> Tensors:
    """lora_A (rank x inputs) and lora_B (outputs x rank) of every linear layer of the model in `base`."""
    config = json.loads((base / "config.json").read_text())
    random = np.random.default_rng(seed)
    weights: Tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, (inputs, outputs) in linear_layers(config).items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            weights[f"{prefix}.lora_A.weight"] = random.standard_normal((rank, inputs), np.float32) / np.float32(inputs**0.5)
            weights[f"{prefix}.lora_B.weight"] = random.standard_normal((outputs, rank), np.float32) * np.float32(scale)
    return weights


def linear_layers(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer in a block of a Llama-like model."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q, kv = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
    return {
        "self_attn.q_proj": (hidden, q),
        "self_attn.k_proj": (hidden, kv),
        "self_attn.v_proj": (hidden, kv),
        "self_attn.o_proj": (q, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }


def write_tensors(path: Path, tensors: Tensors, dtype: str = "float32") -> None:
    """A safetensors file of these tensors, stored as bfloat16 or float32."""
    # numpy has no bfloat16: it is the upper half of a float32, rounded to the nearest.
    stored = {name: _upper_half(tensor) if dtype == "bfloat16" else tensor for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(dtype=dtype, shape=tensor.shape, data_ptr=tensor.ctypes.data, data_len=tensor.nbytes)
        for name, tensor in stored.items()
    }
    serialize_file(specs, str(path), metadata={"format": "pt"})


def _upper_half(tensor: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(tensor).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def card_of(folder: Path, base: Path, **fields: Any) -> AdapterCard:
    """The card of the adapter in `folder`: a selector of toolset `filesystem`, unless `fields` say otherwise."""
    given = {
        "toolset": "filesystem", "role": "selector", "base_model": base.name, "base_fingerprint": base_fingerprint(base),
        "template_hash": "b" * 64, "prompt_profile": "compact", "tools_digest": "c" * 64, "data_sha256": "d" * 64, "seed": 0,
        "rank": json.loads((folder / CONFIG_FILE).read_text())["r"], "created_at": "2026-01-01T00:00:00+00:00",
        "files": hashes_of(folder),
    }  # fmt: skip
    return AdapterCard.model_validate(given | fields)


def publish_random(store: AdapterStore, base: Path, scratch: Path, *, seed: int = 0, rank: int = 8, **fields: Any) -> str:
    """Publishes an adapter with random weights, written first in a new folder `scratch`; `fields` are those of its card."""
    folder = write_adapter(scratch, base, rank=rank, seed=seed)
    return store.publish(folder, card_of(folder, base, seed=seed, **fields))
