"""What the files of an adapter must hold: every byte as the card says, and plain LoRA weights that the engine can serve.

It needs neither numpy nor torch, so that whoever reads an adapter's card can check the whole of it. It does not compare the
weights with the base model's: the card's `base_fingerprint` stands for that.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic_core import from_json

from services.shared.contracts.adapters import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, AdapterCard
from services.shared.contracts.errors import AdapterRefused

WEIGHTS_AND_CONFIG = (CONFIG_FILE, WEIGHTS_FILE)
# The longest JSON that is read: config, card, the header of the weights, a manifest.
LONGEST_JSON = 16 << 20

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# PEFT's settings that change nothing about trained weights. Any other that is set makes something else than plain LoRA, which
# vLLM refuses (vllm/lora/peft_helper.py) or, worse, serves as if it were not set.
_IGNORED = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
    "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying", "eva_config", "lora_ga_config",
    "qalora_group_size", "megatron_core",
}  # fmt: skip
# The other named inits (PiSSA, OLoRA, CorDA, LoftQ) change the base model's weights, which the engine does not.
_SERVED_INITS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
_LORA_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

_WIDTH = {"F32": 4, "F16": 2, "BF16": 2}
# A number's last byte (little endian) holds its sign and the high bits of its exponent. These are the bytes of infinities
# and NaN; for F32 and BF16 also those of numbers beyond 1.7e38, which are as useless.
_NOT_FINITE = {
    "F32": b"\x7f\xff",
    "BF16": b"\x7f\xff",
    "F16": b"\x7c\x7d\x7e\x7f\xfc\xfd\xfe\xff",
}
_CHUNK_BYTES = 8 << 20


class _PeftConfig(BaseModel):
    """What vLLM reads of adapter_config.json."""

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    r: PositiveInt
    lora_alpha: FiniteFloat
    target_modules: Annotated[str | list[str], Field(min_length=1)]
    use_rslora: bool = False
    rank_pattern: dict[str, PositiveInt] | None = None
    alpha_pattern: dict[str, FiniteFloat] | None = None
    bias: Literal["none"] = "none"
    init_lora_weights: bool | str | None = True

    @property
    def ranks(self) -> set[int]:
        return {self.r, *(self.rank_pattern or {}).values()}


class _Tensor(BaseModel):
    dtype: Literal["F32", "F16", "BF16"]
    shape: tuple[int, int]
    data_offsets: tuple[int, int]


_HEADER = TypeAdapter(dict[str, _Tensor])


def hashes_of(folder: Path) -> dict[str, str]:
    """The `files` of a card: the SHA-256, in hex, of the config and of the weights in `folder`.

    Raises:
        AdapterRefused: one of the two is missing.
    """
    try:
        return {name: _sha256(folder / name) for name in WEIGHTS_AND_CONFIG}
    except FileNotFoundError as error:
        raise AdapterRefused(f"there is no {error.filename}; an adapter is {' and '.join(WEIGHTS_AND_CONFIG)}") from None


def stray_entry(folder: Path, expected: set[str]) -> str | None:
    """None when `folder` holds exactly the `expected` files; else what is missing, or what does not belong.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    for name, entry in sorted(found.items()):
        if entry.is_symlink():
            return f"{name} is a symlink, which may lead out of the store"
        if Path(name).suffix in _PICKLES:
            return f"{name} is a pickle, which runs code when it is loaded; only {WEIGHTS_FILE} is served"
        if name not in expected or not entry.is_file():
            return f"{name} does not belong there; an adapter is {', '.join(sorted(expected))} and nothing else"
    missing = sorted(expected - found.keys())
    return f"{missing[0]} is missing: the directory is incomplete" if missing else None


def checked_card(folder: Path, name: str) -> AdapterCard:
    """The card of the adapter `name` whose files are in `folder`, after all of them were read and checked.

    Raises:
        AdapterRefused: the reason, without the adapter's name.
        OSError: something cannot be read.
    """
    if flaw := stray_entry(folder, {*WEIGHTS_AND_CONFIG, CARD_FILE}):
        raise AdapterRefused(flaw)
    card = _card(read_short(folder / CARD_FILE), name)
    if set(card.files) != set(WEIGHTS_AND_CONFIG):
        raise AdapterRefused(f"{CARD_FILE} gives the hashes of {sorted(card.files)}, not of {sorted(WEIGHTS_AND_CONFIG)}")
    for file in WEIGHTS_AND_CONFIG:
        if _sha256(folder / file) != card.files[file]:
            raise AdapterRefused(f"{file} is not the published one: its hash differs from the one in {CARD_FILE}")
    config = _config(read_short(folder / CONFIG_FILE))
    if flaw := _config_flaw(config, card) or _weights_flaw(folder / WEIGHTS_FILE, config.ranks):
        raise AdapterRefused(flaw)
    return card


def read_short(path: Path) -> bytes:
    """The content of a plain file of at most `LONGEST_JSON` bytes.

    Raises:
        AdapterRefused: it is longer, or is a directory or a symlink.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_plainly) as file:
            content = file.read(LONGEST_JSON + 1)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise AdapterRefused(f"{path.name} is a symlink or a directory, not a file") from None
        raise
    if len(content) > LONGEST_JSON:
        raise AdapterRefused(f"{path.name} is longer than {LONGEST_JSON} bytes")
    return content


def _open_plainly(path: str, flags: int) -> int:
    # Without O_NONBLOCK a pipe in the file's place would be waited for.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _card(content: bytes, name: str) -> AdapterCard:
    try:
        card = AdapterCard.model_validate_json(content)
    except ValidationError as error:
        raise AdapterRefused(f"{CARD_FILE} is not a card: {first_fault(error)}") from None
    if card.name != name or hashlib.sha256(content).hexdigest()[:12] != name[-12:]:
        raise AdapterRefused(f"{CARD_FILE} is of {card.name}, not of {name}, or was changed after it was published")
    return card


def _config(content: bytes) -> _PeftConfig:
    try:
        return _PeftConfig.model_validate_json(content)
    except ValidationError as error:
        raise AdapterRefused(f"{CONFIG_FILE} is not one that the engine can serve: {first_fault(error)}") from None


def _config_flaw(config: _PeftConfig, card: AdapterCard) -> str | None:
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights.lower() not in _SERVED_INITS:
        return (
            f"{CONFIG_FILE} has init_lora_weights={config.init_lora_weights!r}, which changed the base model's weights; "
            "convert it to plain LoRA"
        )
    for key, value in (config.model_extra or {}).items():
        if value and key not in _IGNORED:
            return f"{CONFIG_FILE} has {key}={value!r:.100}, which the engine cannot serve; train plain LoRA"
    if max(config.ranks) != card.rank:
        return f"{CONFIG_FILE} has rank {max(config.ranks)}, the card {card.rank}"
    return None


def _weights_flaw(path: Path, ranks: set[int]) -> str | None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = 8 + int.from_bytes(file.read(8), "little")
        if begin > min(size, LONGEST_JSON):
            return f"{WEIGHTS_FILE} is truncated, or not a safetensors file"
        try:
            header = dict(from_json(file.read(begin - 8), allow_inf_nan=False))
            header.pop("__metadata__", None)
            tensors = _HEADER.validate_python(header)
        except ValidationError as error:
            return f"{WEIGHTS_FILE} has a tensor that is not one of LoRA: {first_fault(error)}"
        except (ValueError, TypeError):
            return f"{WEIGHTS_FILE} is not a safetensors file: its header is not a JSON object"
        flaws = (_layout_flaw(tensors, size - begin), _pairs_flaw(tensors, ranks))
        return next(filter(None, flaws), None) or _numbers_flaw(file, begin, tensors)


def _layout_flaw(tensors: dict[str, _Tensor], size: int) -> str | None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, expected = end, end + math.prod(tensor.shape) * _WIDTH[tensor.dtype]
        if tensor.data_offsets != (begin, expected):
            return f"{WEIGHTS_FILE}: tensor {name} does not lie where its shape puts it"
        end = expected
    return None if end == size else f"{WEIGHTS_FILE} is truncated or padded: its header tells of {end} bytes, there are {size}"


def _pairs_flaw(tensors: dict[str, _Tensor], ranks: set[int]) -> str | None:
    found: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        if (match := _LORA_TENSOR.fullmatch(name)) is None:
            return f"{WEIGHTS_FILE}: the engine does not know what tensor {name} is for"
        # A is rank x inputs, B is outputs x rank.
        found.setdefault(match["module"], {})[match["half"]] = tensor.shape[0 if match["half"] == "A" else 1]
    for module, halves in found.items():
        if halves.keys() != {"A", "B"} or halves["A"] != halves["B"] or halves["A"] not in ranks:
            return f"{WEIGHTS_FILE}: {module} has lora_A and lora_B of ranks {halves}, where {CONFIG_FILE} says {sorted(ranks)}"
    return None if found else f"{WEIGHTS_FILE} holds no weights"


def _numbers_flaw(file: BinaryIO, begin: int, tensors: dict[str, _Tensor]) -> str | None:
    for name, tensor in tensors.items():
        file.seek(begin + tensor.data_offsets[0])
        for chunk in _chunks(file, tensor.data_offsets[1] - tensor.data_offsets[0]):
            high_bytes = chunk[_WIDTH[tensor.dtype] - 1 :: _WIDTH[tensor.dtype]]
            if any(byte in high_bytes for byte in _NOT_FINITE[tensor.dtype]):
                return f"{WEIGHTS_FILE}: tensor {name} has weights that are infinite or not a number"
    return None


def _chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length and (chunk := file.read(min(length, _CHUNK_BYTES))):
        length -= len(chunk)
        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_fault(error: ValidationError) -> str:
    """The first of a validation's complaints, in one line: where, and what."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
