"""What activated LoRA saves: the same turns with plain adapters and with activated ones, in one engine.

A turn is a selection (one call that scores 10 or all 50 nodes of the trie of names) and 30 tokens of arguments. `cold` is a
prompt of some 2,000 tokens that nobody has read; `steady` is the next turn of that conversation, 300 tokens longer, with
another tool. All adapters have the same rank and random weights. Prints a table and writes it to build/bench/activated.json.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.local import base_model
from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.selector.labels import build_trie
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.tools import Tool
from tests.engine.vllm_plugin.activated_adapters import RandomAdapter, peft_model, publish
from tests.engine.vllm_plugin.activated_engine import Vllm, cached_tokens, running_vllm
from tests.engine.vllm_plugin.activated_prompts import GENERATION_PROMPT

ROUNDS = 5
SCORED = (10, 50)
KINDS: dict[str, list[int] | None] = {"plain": None, "activated": GENERATION_PROMPT}
MODEL = REPOSITORY / ".run" / "models" / "smollm2-135m-instruct"


def main() -> None:
    """Measures, prints, writes."""
    base_model.prepare(MODEL)
    progress = Progress()
    roles = ["select", "read_text_file", "move_file"]
    adapters = [RandomAdapter(f"{kind}_{role}", KINDS[kind], seed=1, rank=32) for kind in KINDS for role in roles]
    with tempfile.TemporaryDirectory() as folder:
        model = peft_model(MODEL, adapters)
        paths = {adapter.alias: publish(model, adapter, Path(folder) / "store") for adapter in adapters}
        del model
        with running_vllm(Path(folder), MODEL, paths, "--max-model-len", "4096") as vllm:
            turns = _Turns(vllm, PromptRenderer.load(MODEL))
            turns.measured(0, SCORED[0])  # Meets cold memory.
            seconds = {nodes: [turns.measured(ROUNDS * nodes + round, nodes) for round in range(ROUNDS)] for nodes in SCORED}
    rows = [_row(step, nodes, seconds[nodes]) for nodes in SCORED for step in ("cold", "steady")]
    for row in rows:
        what = f"{row['step']:6} {row['prompt_tokens']} tokens, {row['scored_prompts']:2} nodes"
        for kind in KINDS:
            took = row[kind]
            progress.show(
                f"{what}  {kind:9}  select {took['select_s']:5.2f} s  arguments {took['arguments_s']:5.2f} s, "
                f"{took['cached_tokens']} tokens cached"
            )
        progress.show(f"{what}  activated is {row['speed_up']:.2f}x as fast, {row['speed_up_undisturbed']:.2f}x undisturbed")
    target = REPOSITORY / "build" / "bench" / "activated.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


class _Turns:
    def __init__(self, vllm: Vllm, renderer: PromptRenderer) -> None:
        self._vllm = vllm
        self._renderer = renderer
        listed = json.loads((REPOSITORY / "deploy/toolsets/filesystem/tools.json").read_text())
        self._tools = [Tool.model_validate(tool["function"]) for tool in listed]

    def measured(self, round: int, nodes: int) -> dict[str, dict[str, dict[str, Any]]]:
        """Both turns of one new conversation, by kind of adapter; each kind is first in every other round."""
        draw = random.Random(round)
        words = ["report", "draft", "harbour", "archive", "read", "week", "of"]

        def said(count: int) -> str:
            return " ".join(draw.choices(words, k=count))

        first = [{"role": "user", "content": said(1900)}]
        call = {"id": "1", "type": "function", "function": {"name": "read_text_file", "arguments": '{"path":"report.txt"}'}}
        then = [*first, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": said(270)}]
        kinds = list(KINDS) if round % 2 else list(reversed(KINDS))
        return {
            kind: {
                "cold": self._turn(kind, first, "read_text_file", nodes, salt=f"{kind}{round}"),
                "steady": self._turn(kind, then, "move_file", nodes, salt=f"{kind}{round}"),
            }
            for kind in kinds
        }

    def _turn(self, kind: str, messages: list[dict[str, Any]], tool: str, nodes: int, *, salt: str) -> dict[str, Any]:
        prefix = self._renderer.prefix(messages, self._tools, "compact")
        labels = [*(tool.name for tool in self._tools), answer_label(self._tools)]
        trie = build_trie(self._renderer.label_tokens(prefix, labels))
        children = dict(list(trie.nodes().items())[:nodes])
        scored = [[*prefix.head, *trie.shared, *node] for node in children]
        ids = sorted({token for tokens in children.values() for token in tokens})
        scoring = {"max_tokens": 1, "logprobs": len(ids), "logprob_token_ids": ids}
        started = time.perf_counter()
        self._vllm.complete(f"{kind}_select", scored, cache_salt=salt, **scoring)
        selected = time.perf_counter()
        prompt = self._renderer.arguments_prompt(prefix, tool)
        written = self._vllm.complete(f"{kind}_{tool}", prompt, max_tokens=30, ignore_eos=True, cache_salt=salt)
        return {
            "select_s": selected - started,
            "arguments_s": time.perf_counter() - selected,
            "cached_tokens": cached_tokens(written),
            "prompt_tokens": len(prompt),
        }


def _row(step: str, nodes: int, rounds: list[dict[str, dict[str, dict[str, Any]]]]) -> dict[str, Any]:
    def total(turn: dict[str, Any]) -> float:
        return float(turn["select_s"] + turn["arguments_s"])

    totals = {kind: [total(turns[kind][step]) for turns in rounds] for kind in KINDS}
    medians = {
        kind: {
            key: statistics.median(turns[kind][step][key] for turns in rounds)
            for key in ("select_s", "arguments_s", "cached_tokens")
        }
        for kind in KINDS
    }
    return {
        "step": step,
        "rounds": len(rounds),
        "prompt_tokens": rounds[0]["plain"][step]["prompt_tokens"],
        "scored_prompts": nodes,
        **medians,
        "speed_up": statistics.median(plain / activated for plain, activated in zip(*totals.values(), strict=True)),
        # Whoever else is busy on the machine only ever adds time.
        "speed_up_undisturbed": min(totals["plain"]) / min(totals["activated"]),
    }


if __name__ == "__main__":
    main()
