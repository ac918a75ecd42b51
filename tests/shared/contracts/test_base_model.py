"""A base model is known by its weights and its config, wherever it lies and whoever saved it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.local import base_model
from services.shared.contracts.base_model import base_fingerprint
from tests.adapters import tiny_base, write_tensors

ROOT = Path(__file__).resolve().parents[3]
SMOLLM2 = ROOT / ".run" / "models" / "smollm2-135m-instruct"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_copy_under_another_name_is_the_same_model(base, tmp_path):
    shutil.copytree(base, tmp_path / "copy")
    assert base_fingerprint(tmp_path / "copy") == base_fingerprint(base)


def test_tokenizer_and_chat_template_do_not_matter(base):
    before = base_fingerprint(base)
    (base / "tokenizer.json").write_text("{}")
    assert base_fingerprint(base) == before


def other_spelling(config: dict[str, Any]) -> None:
    config["torch_dtype"] = config.pop("dtype")
    config |= {"transformers_version": "9", "_name_or_path": "/elsewhere", "use_cache": False, "rope": {"_from": "x"}}


def test_what_another_save_changes_in_the_config_does_not_matter(base):
    edit_config(base, lambda config: config.update(rope={}))
    before = base_fingerprint(base)
    edit_config(base, other_spelling)
    assert base_fingerprint(base) == before


def test_what_changes_the_computation_in_the_config_matters(base):
    before = base_fingerprint(base)
    edit_config(base, lambda config: config.update(rope_theta=5.0))
    assert base_fingerprint(base) != before


@pytest.mark.parametrize("change", [
    lambda base: (base / "model.safetensors").rename(base / "other.safetensors"),
    lambda base: os.truncate(base / "model.safetensors", 100),
    lambda base: tiny_base(base / "sub", seed=1).joinpath("model.safetensors").replace(base / "model.safetensors"),
    lambda base: shutil.copy(base / "model.safetensors", base / "more.safetensors"),
], ids=["name", "size", "weights", "one file more"])  # fmt: skip
def test_other_weights_are_another_model(base, change):
    before = base_fingerprint(base)
    change(base)
    assert base_fingerprint(base) != before


def test_the_index_says_which_files_are_the_model(base):
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
    before = base_fingerprint(base)
    (base / "consolidated.safetensors").write_bytes(b"the same weights in another layout")
    assert base_fingerprint(base) == before


@pytest.mark.parametrize("size", [0, 3, 8, 20, 4096, 5000])
def test_a_file_of_any_size_is_read_to_its_end(tmp_path, size):
    base = tiny_base(tmp_path / "base")
    (base / "model.safetensors").write_bytes(bytes(size))
    before = base_fingerprint(base)
    if size:
        (base / "model.safetensors").write_bytes(bytes(size - 1) + b"\1")
        assert base_fingerprint(base) != before


@pytest.mark.parametrize("missing", ["config.json", "*.safetensors", "shard-2.safetensors"])
def test_a_missing_file_is_named(base, missing):
    if missing.startswith("shard"):
        (base / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "model.safetensors", "b": "shard-2.safetensors"}})
        )
    else:
        next(base.glob(missing)).unlink()
    with pytest.raises(FileNotFoundError) as refused:
        base_fingerprint(base)
    assert missing in str(refused.value)


@pytest.mark.real
def test_fine_tunes_of_the_real_base_model_differ_even_if_only_one_projection_was_trained(tmp_path):
    base_model.prepare(SMOLLM2, say=lambda text: None)
    original = base_fingerprint(SMOLLM2)
    found = {original}
    for module in ("v_proj", "q_proj", "down_proj", "embed_tokens"):
        tuned = tmp_path / module
        tuned.mkdir()
        shutil.copy(SMOLLM2 / "config.json", tuned)
        shutil.copy(SMOLLM2 / "model.safetensors", tuned)
        touch_weights(tuned / "model.safetensors", module)
        found.add(base_fingerprint(tuned))
    assert len(found) == 5

    shutil.copy(SMOLLM2 / "model.safetensors", tuned)
    assert base_fingerprint(tuned) == original


def touch_weights(path: Path, module: str) -> None:
    """The smallest training there is: the last bit of each bfloat16 weight of a module, in all layers."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, tensor in header.items():
            if f".{module}." in name:
                begin, end = tensor["data_offsets"]
                file.seek(8 + length + begin)
                weights = np.frombuffer(file.read(end - begin), np.uint16) ^ 1
                file.seek(8 + length + begin)
                file.write(weights.tobytes())


def test_writing_the_same_weights_again_gives_the_same_fingerprint(base):
    before = base_fingerprint(base)
    weights = {"model.embed_tokens.weight": np.random.default_rng(0).standard_normal((64, 16), np.float32)}
    write_tensors(base / "model.safetensors", weights)
    assert base_fingerprint(base) == before
