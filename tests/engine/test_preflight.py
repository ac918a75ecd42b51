"""What keeps the engine from starting vLLM, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.engine.preflight import obstacle
from services.engine.settings import EngineSettings
from tests.engine.model_folder import write_model


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


def why(model: Path, **settings):
    return obstacle(EngineSettings(model_dir=model, **settings))


def test_a_whole_model_folder_is_no_obstacle(model):
    assert why(model) is None


def test_a_missing_folder_is_named_with_the_setting_to_change(tmp_path):
    said = why(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in said
    assert "AGENTFLUX_ENGINE_MODEL_DIR" in said


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    assert f"{model / name} is missing" in why(model)


def test_a_folder_without_weights_says_so(model):
    (model / "model.safetensors").unlink()
    assert "no weights (*.safetensors)" in why(model)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"not safetensors at all, but long enough to look at",
        lambda content: content[:8] + b"[" + content[9:],
    ],
    ids=["cut off by a byte", "cut off in the header", "empty", "something else", "header is no JSON"],
)
def test_a_corrupt_weights_file_is_named(model, spoil):
    file = model / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    assert f"{file} is corrupt or was cut off" in why(model)


def test_a_socket_path_that_linux_cannot_hold_is_an_obstacle(model):
    assert "longer than 107 bytes" in why(model, vllm_url="unix:/" + "x" * 107)
    assert why(model, vllm_url="unix:/" + "x" * 106) is None


def test_an_interpreter_that_is_not_there_is_named(model):
    assert "/no/python" in why(model, python="/no/python")
