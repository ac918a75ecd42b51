"""What an adapter may hold: each way of being unfit to serve is refused by its own words, at publish already."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import STAGING
from services.shared.contracts.adapters import CONFIG_FILE, WEIGHTS_FILE
from services.shared.contracts.errors import AdapterRefused
from tests.adapters import card_of, random_weights, write_adapter, write_tensors


def config(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def tensors(**changed: np.ndarray[Any, Any] | None) -> Callable[[Path], None]:
    """Other weights under these names, None for none; `__` in a name is a dot."""

    def change(folder: Path) -> None:
        named = {name.replace("__", "."): tensor for name, tensor in changed.items()}
        weights = random_weights(folder.parent / "base", rank=8, seed=0, scale=0.02) | named
        write_tensors(folder / WEIGHTS_FILE, {name: tensor for name, tensor in weights.items() if tensor is not None})

    return change


def raw_weights(header: object, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = json.dumps(header).encode()
        (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(text)) + text + data)

    return change


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS_FILE, (folder / WEIGHTS_FILE).stat().st_size - 1)


def symlink_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS_FILE).symlink_to(folder.parent / "elsewhere")


Q = "base_model__model__model__layers__0__self_attn__q_proj"
A, B = np.zeros((8, 16), np.float32), np.zeros((16, 8), np.float32)
PAIR = {"a.lora_A.weight": {"dtype": "F16", "shape": [8, 1], "data_offsets": [0, 16]}}


@pytest.mark.parametrize(("change", "words"), [
    pytest.param(config(use_dora=True), "use_dora=True, which the engine cannot serve", id="DoRA"),
    pytest.param(config(bias="all"), "bias: Input should be 'none'", id="bias"),
    pytest.param(config(lora_bias=True), "lora_bias=True", id="lora_bias"),
    pytest.param(config(modules_to_save=["lm_head"]), r"modules_to_save=\['lm_head'\]", id="modules_to_save"),
    pytest.param(config(layer_replication=[[0, 1]]), r"layer_replication=\[\[0, 1\]\]", id="layer_replication"),
    pytest.param(config(alora_invocation_tokens=[1]), "alora_invocation_tokens", id="activated LoRA"),
    pytest.param(config(init_lora_weights="pissa"), "'pissa', which changed the base model's weights", id="PiSSA"),
    pytest.param(config(velora_config={"x": 1}), "velora_config", id="a variant that vLLM would ignore"),
    pytest.param(config(peft_type="LOHA"), "peft_type: Input should be 'LORA'", id="not LoRA"),
    pytest.param(config(r=4), "rank 4, the card 8", id="rank of the config"),
    pytest.param(config(rank_pattern={"q_proj": 64}), "rank 64, the card 8", id="rank of a module"),
    pytest.param(config(rank_pattern=[64]), "rank_pattern: Input should be an object", id="rank_pattern"),
    pytest.param(config(lora_alpha=None), "lora_alpha", id="no alpha"),
    pytest.param(lambda folder: (folder / CONFIG_FILE).write_text("{"), "adapter_config.json is not one", id="not JSON"),
    pytest.param(lambda folder: (folder / CONFIG_FILE).write_text("[" * 10**6), "adapter_config.json is not one", id="deep JSON"),
    pytest.param(lambda folder: (folder / "adapter_model.bin").touch(), "adapter_model.bin is a pickle", id="pickle"),
    pytest.param(lambda folder: (folder / "README.md").touch(), "README.md does not belong there", id="another file"),
    pytest.param(lambda folder: (folder / "x").mkdir(), "x does not belong there", id="a folder inside"),
    pytest.param(symlink_weights, "adapter_model.safetensors is a symlink", id="symlink"),
    pytest.param(truncate, "is truncated or padded", id="truncated"),
    pytest.param(lambda folder: os.truncate(folder / WEIGHTS_FILE, 50), "is truncated, or not a safetensors", id="in its header"),
    pytest.param(lambda folder: os.truncate(folder / WEIGHTS_FILE, 0), "is truncated, or not a safetensors", id="empty"),
    pytest.param(raw_weights([1], b""), "header is not a JSON object", id="header is a list"),
    pytest.param(raw_weights({}, b""), "holds no weights", id="no tensors"),
    pytest.param(raw_weights(PAIR, bytes(16)), "does not know what tensor a.lora_A.weight is for", id="unknown tensor"),
    pytest.param(raw_weights(PAIR, bytes(17)), "truncated or padded: its header tells of 16 bytes, there are 17", id="padded"),
    pytest.param(raw_weights({"a": PAIR["a.lora_A.weight"] | {"shape": [9, 1]}}, bytes(16)), "does not lie where", id="layout"),
    pytest.param(raw_weights({"a": {"dtype": "I8"}}, b""), "a.dtype: Input should be 'F32', 'F16' or 'BF16'", id="integers"),
    pytest.param(tensors(**{f"{Q}__lora_B__weight": None}), r"q_proj has .* of ranks \{'A': 8\}", id="half a pair"),
    pytest.param(tensors(**{f"{Q}__lora_B__weight": B[:, :4]}), "'A': 8, 'B': 4", id="ranks of a pair"),
    pytest.param(
        tensors(**{f"{Q}__lora_A__weight": A[:4], f"{Q}__lora_B__weight": B[:, :4]}), "'A': 4, 'B': 4", id="rank of the weights"
    ),
    pytest.param(tensors(**{"base_model__model__lm_head__weight": A}), "what tensor base_model.model.lm_head", id="whole module"),
    pytest.param(tensors(**{f"{Q}__lora_A__weight": A + np.float32("nan")}), "infinite or not a number", id="NaN"),
    pytest.param(tensors(**{f"{Q}__lora_A__weight": A - np.float32("inf")}), "infinite or not a number", id="infinity"),
])  # fmt: skip
def test_what_could_not_serve_is_not_published(store, base, adapter, change, words):
    card = card_of(adapter, base)
    change(adapter)
    card = card.model_copy(update={"files": hashes_of(adapter)})
    with pytest.raises(AdapterRefused, match=words):
        store.publish(adapter, card)
    assert store.adapters() == []
    assert not (store.root / STAGING).exists() or list((store.root / STAGING).iterdir()) == []


@pytest.mark.parametrize("value", [1, -1, 65504, -65504, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", [("F16", np.float16), ("F32", np.float32)])
def test_one_number_among_many_is_found_when_it_is_not_finite(store, base, adapter, value, dtype):
    kind, numpy_type = dtype
    numbers = np.zeros((2, 1, 1000), numpy_type)
    numbers[1, 0, 777] = value
    pair = [{"dtype": kind, "shape": shape, "data_offsets": [half * numbers[0].nbytes, (half + 1) * numbers[0].nbytes]}
            for half, shape in enumerate(([1, 1000], [1000, 1]))]  # fmt: skip
    names = [f"base_model.model.x.lora_{half}.weight" for half in "AB"]
    raw_weights(dict(zip(names, pair, strict=True)), numbers.tobytes())(adapter)
    config(r=1)(adapter)
    card = card_of(adapter, base)
    if np.isfinite(value):
        assert store.publish(adapter, card)
    else:
        with pytest.raises(AdapterRefused, match=r"x\.lora_B\.weight has weights that are infinite or not a number"):
            store.publish(adapter, card)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_both_kinds_of_numbers_are_taken(store, base, tmp_path, dtype):
    folder = write_adapter(tmp_path / "x", base, dtype=dtype, scale=3.0)
    assert store.publish(folder, card_of(folder, base))
