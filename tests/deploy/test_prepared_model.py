"""The prepared base model: faithful where the GGUF file says too little, and any damage to it is found and named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from deploy.local.base_model import prepare, whats_wrong
from deploy.local.plan import REPOSITORY

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model():
    folder = REPOSITORY / ".run" / "models" / "smollm2-135m-instruct"
    prepare(folder)
    return folder


@pytest.fixture
def copy(model, tmp_path):
    for file in model.iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path


def replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def test_a_prepared_folder_is_left_as_it_is(model):
    before = (model / "model.safetensors").stat().st_ino
    said = []
    prepare(model, say=said.append)
    assert said == []
    assert (model / "model.safetensors").stat().st_ino == before


def test_a_flipped_byte_in_the_weights_is_found(copy):
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    replace(copy / "model.safetensors", bytes(content))
    assert f"{copy / 'model.safetensors'} is corrupt" in whats_wrong(copy)


def test_a_missing_file_is_named(copy):
    (copy / "tokenizer.json").unlink()
    assert f"{copy / 'tokenizer.json'} is missing" in whats_wrong(copy)


def test_a_damaged_manifest_is_named(copy):
    replace(copy / "manifest.json", b"{")
    assert f"{copy / 'manifest.json'} is damaged" in whats_wrong(copy)


def test_a_folder_of_an_older_recipe_is_told_apart(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["made_from"]["recipe"] = 0
    replace(copy / "manifest.json", json.dumps(manifest).encode())
    assert "another version of this recipe" in whats_wrong(copy)


def test_the_weights_are_plain_bfloat16(model):
    config = json.loads((model / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    with (model / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} == {"BF16"}


def test_a_turn_ends_with_im_end(model):
    for name in ("config.json", "generation_config.json"):
        assert json.loads((model / name).read_text())["eos_token_id"] == 2
    assert json.loads((model / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"


def test_special_tokens_are_single_tokens(model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tokenizer.encode("<|endoftext|><|im_start|><|im_end|>", add_special_tokens=False).ids
    assert ids == [0, 1, 2]


@pytest.mark.parametrize("text", ['{"a": [1, 2.5]}\n\n  x\t', "日本語 🎉 é ²", " leading", "don't", "a  12   b"])
def test_what_is_encoded_decodes_to_itself(model, text):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_digits_are_split_off_before_anything_else(model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert tokenizer.encode("a  12", add_special_tokens=False).tokens == ["a", "ĠĠ", "1", "2"]
