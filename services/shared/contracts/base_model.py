"""Which base model a folder holds: adapters fit one set of weights, and no name on a folder promises that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from services.shared.contracts.tools import canonical_json

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"

# What a save or a move of the same weights changes. The type in which weights are stored is in their own headers.
_VOLATILE = {"transformers_version", "dtype", "torch_dtype", "use_cache"}
_BLOCKS, _BLOCK_BYTES = 256, 4096
_LONGEST_HEADER = 100_000_000


def base_fingerprint(model_dir: Path) -> str:
    """SHA-256 in hex over config.json and, of each weights file, name, size, header and 256 evenly spaced blocks of 4 KiB.

    Reads about 1 MB a file, so it costs milliseconds even for 15 GB. It tells models and fine-tunes apart, also those with
    only one projection of each layer changed; it does not notice a few changed bytes, which is a task for a checksum.

    Raises:
        FileNotFoundError: names the file that is missing.
    """
    config = json.loads((model_dir / CONFIG_FILE).read_bytes())
    digest = hashlib.sha256(canonical_json(_lasting(config)).encode("utf-8", "surrogatepass"))
    for name in _weights_files(model_dir):
        digest.update(b"\0" + name.encode() + b"\0")
        for piece in _sample(model_dir / name):
            digest.update(piece)
    return digest.hexdigest()


def _lasting(config: object) -> object:
    if not isinstance(config, dict):
        return config
    kept = {key: value for key, value in config.items() if key not in _VOLATILE and not key.startswith("_")}
    return {key: _lasting(value) for key, value in kept.items()}


def _weights_files(model_dir: Path) -> list[str]:
    # Some folders hold the weights twice, in another layout; the index says which files make up the model.
    index = model_dir / INDEX_FILE
    if index.is_file():
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    if names := sorted(path.name for path in model_dir.glob("*.safetensors")):
        return names
    raise FileNotFoundError(f"there are no weights (*.safetensors) in {model_dir}")


def _sample(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER))
        yield size.to_bytes(8, "little") + length + header
        begin = len(length) + len(header)
        for block in range(_BLOCKS):
            # The last block ends with the file.
            file.seek(begin + max(0, size - begin - _BLOCK_BYTES) * block // (_BLOCKS - 1))
            yield file.read(_BLOCK_BYTES)
