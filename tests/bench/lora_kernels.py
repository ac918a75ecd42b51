"""How fast LoRA is on CPUs: vLLM's own kernels against those of our plugin, one engine after the other in one run.

Uses the base model of `make up`. Prints a table and writes it to build/bench/lora_kernels.json.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local import base_model
from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from tests.engine.vllm_plugin.serving import MODEL, Vllm, publish_strong, running_vllm

PREFILL_TOKENS = 500
DECODE_TOKENS = 24
ROUNDS = 3
BATCH = 4

Measured = dict[str, float]


def main() -> None:
    """Measures, prints, writes."""
    progress = Progress()
    base_model.prepare(MODEL, say=progress.show)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        store.mkdir()
        adapters = [publish_strong(store, Path(folder, f"scratch{i}"), tool=f"t{i}", seed=i, rank=32) for i in range(BATCH)]
        measured = {}
        for name, kernels in (("vLLM's", "0"), ("ours", "1")):
            progress.show(f"starting vLLM with {name} LoRA kernels")
            env = {"AGENTFLUX_ENGINE_PLUGIN_KERNELS": kernels}
            with running_vllm(Path(folder, f"kernels{kernels}"), store, "--max-loras", "4", **env) as vllm:
                measured[name] = _measure(vllm, adapters)
    rows = [
        {"what": what, "vllm": theirs, "ours": ours, "times_faster": ours / theirs if "tokens/s" in what else theirs / ours}
        for (what, theirs), ours in zip(measured["vLLM's"].items(), measured["ours"].values(), strict=True)
    ]
    for row in rows:
        progress.show(f"{row['what']:52} vLLM's {row['vllm']:8.3f}   ours {row['ours']:8.3f}   x{row['times_faster']:.1f}")
    target = REPOSITORY / "build" / "bench" / "lora_kernels.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


def _measure(vllm: Vllm, adapters: list[str]) -> Measured:
    unread = random.Random(0)

    def prefill(model: str) -> float:
        return _median_s(lambda: vllm.complete(model, [_prompt(unread, PREFILL_TOKENS)], max_tokens=1))

    # Everything is used once before it is timed.
    for model in ("base", *adapters):
        vllm.complete(model, [_prompt(unread, 50)], max_tokens=2)
    first = adapters[0]
    return {
        f"prefill of {PREFILL_TOKENS} unread tokens, adapter, s": prefill(first),
        f"prefill of {PREFILL_TOKENS} unread tokens, base model, s": prefill("base"),
        "decoding, one request of an adapter, tokens/s": _decode_rate(vllm, [first]),
        f"decoding, {BATCH} requests of one adapter, tokens/s": _decode_rate(vllm, [first] * BATCH),
        f"decoding, {BATCH} requests of {BATCH} adapters, tokens/s": _decode_rate(vllm, adapters),
        "decoding, one request of the base model, tokens/s": _decode_rate(vllm, ["base"]),
        f"decoding, {BATCH} requests of the base model, tokens/s": _decode_rate(vllm, ["base"] * BATCH),
    }


def _decode_rate(vllm: Vllm, models: list[str]) -> float:
    """Tokens per second of requests that run together, one per model, without their prefill."""
    prompts = [_prompt(random.Random(i), 20) for i, _ in enumerate(models)]

    def replies(tokens: int) -> float:
        def ask(model: str, prompt: list[int]) -> None:
            vllm.complete(model, [prompt], max_tokens=tokens, ignore_eos=True)

        return _median_s(lambda: list(asking.map(ask, models, prompts)))

    with ThreadPoolExecutor(len(models)) as asking:
        return len(models) * DECODE_TOKENS / (replies(DECODE_TOKENS + 1) - replies(1))


def _prompt(draw: random.Random, length: int) -> list[int]:
    return [draw.randrange(100, 40000) for _ in range(length)]


def _median_s(action: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        action()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


if __name__ == "__main__":
    main()
