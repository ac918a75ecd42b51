"""What grounding costs: the same requests with it and without it, turn by turn against one engine.

Uses the base model of `make up`, and a prompt of many words of which the model repeats some. Prints a table and writes it to
build/bench/grounding.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokenizers import Tokenizer

from deploy.local import base_model
from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.shared.contracts.grounding import GROUNDING, GROUNDING_ARGUMENT
from tests.engine.vllm_plugin.serving import MODEL, Vllm, running_vllm

ROUNDS = 15
TOKENS = 64
BATCHES = (1, 4, 16)
PROCESSOR = "services.engine.vllm_plugin.grounding:Grounding"


def main() -> None:
    """Measures, prints, writes."""
    progress = Progress()
    base_model.prepare(MODEL, say=progress.show)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        store.mkdir()
        progress.show("starting vLLM")
        with running_vllm(Path(folder, "vllm"), store, "--logits-processors", PROCESSOR) as vllm:
            rows = [_measured(vllm, batch) for batch in BATCHES]
    for row in rows:
        times = f"plain {row['plain_s']:.3f} s, grounded {row['grounded_s']:.3f} s, x{row['ratio']:.3f}"
        progress.show(f"{row['requests']:3.0f} at once, {TOKENS} tokens each: {times}")
    target = REPOSITORY / "build" / "bench" / "grounding.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


def _measured(vllm: Vllm, batch: int) -> dict[str, float]:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    story = (REPOSITORY / "README.md").read_text()
    prompts = [tokenizer.encode(f"{story[i * 200 :]}", add_special_tokens=False).ids[:1500] for i in range(batch)]
    took: dict[float, list[float]] = {0.0: [], GROUNDING: []}

    def ask(prompt: list[int], nats: float) -> None:
        vllm.complete("base", [prompt], max_tokens=TOKENS, ignore_eos=True, vllm_xargs={GROUNDING_ARGUMENT: nats})

    with ThreadPoolExecutor(batch) as asking:
        # The first time, prompts are read; afterwards they are cached.
        for round_ in range(ROUNDS + 1):
            for nats in took:
                started = time.perf_counter()
                list(asking.map(ask, prompts, [nats] * batch))
                if round_:
                    took[nats].append(time.perf_counter() - started)
    plain, grounded = (statistics.median(times) for times in took.values())
    return {"requests": batch, "plain_s": plain, "grounded_s": grounded, "ratio": grounded / plain}


if __name__ == "__main__":
    main()
