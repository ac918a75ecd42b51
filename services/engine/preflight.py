"""Decides whether vLLM can be started at all, before a minute is spent on trying: interpreter, model folder, socket."""

from __future__ import annotations

import json
from pathlib import Path

from services.engine.launch import socket_path
from services.engine.settings import EngineSettings

# Linux keeps 108 bytes for the path of a unix socket, the closing NUL among them.
_LONGEST_SOCKET_PATH = 107
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def obstacle(settings: EngineSettings) -> str | None:
    """None when nothing stands in the way of a start; else one sentence that names the thing and the next step."""
    if not settings.python.is_file():
        return f"there is no interpreter at {settings.python}; set AGENTFLUX_ENGINE_PYTHON to one that can import vllm"
    return _model_obstacle(settings.model_dir) or _socket_obstacle(socket_path(settings))


def _model_obstacle(folder: Path) -> str | None:
    again = "prepare the folder again, or set AGENTFLUX_ENGINE_MODEL_DIR to a whole one"
    if not folder.is_dir():
        return f"the model folder {folder} is not there; {again}"
    for name in _NEEDED:
        if not (folder / name).is_file():
            return f"{folder / name} is missing; {again}"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return f"there are no weights (*.safetensors) in {folder}; {again}"
    for file in weights:
        if not _is_whole(file):
            return f"{file} is corrupt or was cut off: its size is not the one that its own header gives; {again}"
    return None


def _is_whole(file: Path) -> bool:
    # A safetensors file is 8 bytes with the header's length, the header as JSON, and the tensors that the header lists.
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if length > size:
            return False
        try:
            header = json.loads(content.read(length))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _socket_obstacle(path: Path | None) -> str | None:
    if path is not None and len(str(path).encode()) > _LONGEST_SOCKET_PATH:
        return f"the socket path {path} is longer than {_LONGEST_SOCKET_PATH} bytes; set a shorter AGENTFLUX_ENGINE_VLLM_URL"
    return None
