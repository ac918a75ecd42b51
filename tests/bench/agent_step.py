"""What a step of an agent costs the engine: the ancestor's two chat calls against a vote and a forced call, and their votes.

One vLLM after the other in one run. `original` is AgentFlux as published (arXiv 2510.00229): stock vLLM with one adapter slot,
every schema in both prompts, a system prompt per role, ten samples at temperature 1, and the whole call decoded. `ours` scores
the names exactly and writes only the arguments, with the schemas in the prompt (full) or without (compact). Adapters have
random weights: they cost what trained ones do, and say nothing about accuracy. Every adapter has read the tools before, as in
a deployment that has been running for a while. Prints a table and writes it to build/bench/agent_step.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local import base_model
from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.selector.labels import build_trie
from services.shared.contracts.adapters import PromptProfile
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.tools import JsonObject, Tool
from tests.engine.vllm_plugin.serving import MODEL, Vllm, publish_strong, running_vllm

SAMPLES = 10
# `<tool_call>\n{"name": "read_text_file"}\n</tool_call>`; and a call with 40 tokens of arguments in its 13 tokens of scaffold.
NAME_TOKENS, CALL_TOKENS, ARGUMENT_TOKENS = 14, 53, 40
STEPS = ("read_text_file", "search_files", "edit_file", "read_text_file")
ROUNDS = 2


@dataclass
class Spent:
    """Seconds and decoded tokens of the calls so far, by what they were for."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)

    def note(self, what: str, call: Callable[[], list[dict[str, Any]]]) -> None:
        started = time.perf_counter()
        replies = call()
        self.seconds.setdefault(what, []).append(time.perf_counter() - started)
        self.tokens.setdefault(what, []).append(sum(reply["usage"]["completion_tokens"] for reply in replies))


def main() -> None:
    """Measures, prints, writes."""
    progress, spent = Progress(), Spent()
    base_model.prepare(MODEL, say=progress.show)
    renderer = PromptRenderer.load(MODEL)
    tools = [Tool.model_validate(entry["function"]) for entry in json.loads(_TOOLS_FILE.read_text())]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder, "store")
        store.mkdir()
        names = ("select", *dict.fromkeys(STEPS))
        adapters = {name: publish_strong(store, Path(folder, name), tool=name, seed=i) for i, name in enumerate(names)}
        progress.show("starting vLLM as the original does")
        length = ("--max-model-len", "8192")
        stock = {"AGENTFLUX_ENGINE_PLUGIN_KERNELS": "0"}
        with running_vllm(Path(folder, "original"), store, *length, **stock) as vllm:
            _original(vllm, renderer, tools, adapters, Spent(), run="Before")
            _original(vllm, renderer, tools, adapters, spent, run="Original")
        progress.show("starting vLLM as we do")
        ours = ("--max-loras", "8", "--max-cpu-loras", "16", "--scheduling-policy", "priority")
        vllm = stack.enter_context(running_vllm(Path(folder, "ours"), store, *length, *ours))
        for profile in ("full", "compact"):
            prefix = renderer.prefix(_conversations("Before")[0][1], tools, profile)
            for adapter in adapters.values():
                vllm.complete(adapter, [prefix.head], max_tokens=1)
            _ours(vllm, renderer, tools, adapters, spent, profile)
            _sampled(vllm, renderer, tools, adapters, spent, profile)
            _warmed(vllm, renderer, tools, adapters, spent, profile)
    rows = _rows(spent)
    for row in rows:
        progress.show(f"{row['what']:44} {row['seconds']:8.3f} s {row['decoded']:6.0f} tokens decoded   {row['ratio']}")
    target = REPOSITORY / "build" / "bench" / "agent_step.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


_TOOLS_FILE = REPOSITORY / "deploy" / "toolsets" / "filesystem" / "tools.json"


def _conversations(run: str) -> list[tuple[str, list[JsonObject]]]:
    """The tool of each step, and the conversation before it: every step adds a call and about 60 tokens of result."""
    messages: list[JsonObject] = [{"role": "user", "content": f"{run}: find the meeting notes of May and correct the date."}]
    found = []
    for number, tool in enumerate(STEPS):
        found.append((tool, list(messages)))
        call = {"id": f"call_{number}", "type": "function", "function": {"name": tool, "arguments": '{"path":"notes/may.md"}'}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        result = " ".join(f"Line {line} of {tool}: the meeting is on the {line}th of May." for line in range(5))
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": result})
    return found


def _original(
    vllm: Vllm, renderer: PromptRenderer, tools: list[Tool], adapters: dict[str, str], spent: Spent, *, run: str
) -> None:
    sampling = {"n": SAMPLES, "temperature": 1.0, "max_tokens": NAME_TOKENS, "ignore_eos": True}
    for tool, messages in _conversations(run):
        # A system prompt per role, so that nothing of one is in the cache for the other.
        select = renderer.name_prompt(renderer.prefix([_system("Choose the function."), *messages], tools))
        call = renderer.name_prompt(renderer.prefix([_system(f"Call {tool}."), *messages], tools))
        spent.note("original: ten samples", lambda p=select: [vllm.complete(adapters["select"], [p], **sampling)])
        spent.note(
            "original: whole call",
            lambda p=call, t=tool: [vllm.complete(adapters[t], [p], max_tokens=CALL_TOKENS, ignore_eos=True)],
        )


def _ours(
    vllm: Vllm, renderer: PromptRenderer, tools: list[Tool], adapters: dict[str, str], spent: Spent, profile: PromptProfile
) -> None:
    for run in range(ROUNDS):
        for tool, messages in _conversations(f"Ours {run}"):
            prefix = renderer.prefix(messages, tools, profile)
            trie = build_trie(renderer.label_tokens(prefix, [*(t.name for t in tools), answer_label(tools)]))
            base = [*prefix.head, *trie.shared]
            likely = [node for node in trie.nodes() if node and trie.paths[tool][: len(node)] == node]
            children = sorted({token for ids in trie.nodes().values() for token in ids})
            scoring = {"max_tokens": 1, "logprobs": len(children), "logprob_token_ids": children}

            # A sure vote: the root, then the nodes of one branch (services/selector/labels.py, next_wave).
            def vote(base: list[int] = base, likely: list[Any] = likely, scoring: Any = scoring) -> list[dict[str, Any]]:
                first = vllm.complete(adapters["select"], [base], **scoring)
                return [first, vllm.complete(adapters["select"], [[*base, *node] for node in likely], **scoring)]

            prompt = renderer.arguments_prompt(prefix, tool)
            spent.note(f"ours, {profile}: exact vote", vote)
            spent.note(
                f"ours, {profile}: arguments",
                lambda p=prompt, t=tool: [vllm.complete(adapters[t], [p], max_tokens=ARGUMENT_TOKENS, ignore_eos=True)],
            )


def _sampled(
    vllm: Vllm, renderer: PromptRenderer, tools: list[Tool], adapters: dict[str, str], spent: Spent, profile: PromptProfile
) -> None:
    sampling = {"n": SAMPLES, "temperature": 1.0, "max_tokens": NAME_TOKENS - 7, "ignore_eos": True}
    for run in range(ROUNDS):
        for _, messages in _conversations(f"Sampled {run}"):
            prompt = renderer.name_prompt(renderer.prefix(messages, tools, profile))
            spent.note(
                f"ours, {profile}: ten samples of the name",
                lambda p=prompt: [vllm.complete(adapters["select"], [p], **sampling)],
            )


def _warmed(
    vllm: Vllm, renderer: PromptRenderer, tools: list[Tool], adapters: dict[str, str], spent: Spent, profile: PromptProfile
) -> None:
    """While a tool runs, the adapter of the next one (guessed right) reads the conversation so far."""
    for run in range(ROUNDS):
        before: list[int] | None = None
        for tool, messages in _conversations(f"Warmed {run}"):
            prefix = renderer.prefix(messages, tools, profile)
            prompt = renderer.arguments_prompt(prefix, tool)
            if before is not None:
                spent.note(
                    f"ours, {profile}: warm-up of the next adapter",
                    lambda p=before, t=tool: [vllm.complete(adapters[t], [p], max_tokens=1)],
                )
            spent.note(
                f"ours, {profile}: arguments, warmed",
                lambda p=prompt, t=tool: [vllm.complete(adapters[t], [p], max_tokens=ARGUMENT_TOKENS, ignore_eos=True)],
            )
            before = prefix.head


def _rows(spent: Spent) -> list[dict[str, Any]]:
    def step(*parts: str) -> tuple[float, float]:
        return (
            sum(statistics.mean(spent.seconds[part]) for part in parts),
            sum(statistics.mean(spent.tokens[part]) for part in parts),
        )

    original = step("original: ten samples", "original: whole call")
    rows = [{"what": "step, original", "seconds": original[0], "decoded": original[1], "ratio": "x1.0"}]
    for profile in ("full", "compact"):
        seconds, decoded = step(f"ours, {profile}: exact vote", f"ours, {profile}: arguments")
        faster = f"x{original[0] / seconds:.1f} faster than the original"
        rows.append({"what": f"step, ours, {profile}", "seconds": seconds, "decoded": decoded, "ratio": faster})
    for profile in ("full", "compact"):
        sampled, exact = step(f"ours, {profile}: ten samples of the name"), step(f"ours, {profile}: exact vote")
        rows.append({"what": f"vote, {profile}, ten samples", "seconds": sampled[0], "decoded": sampled[1], "ratio": "x1.0"})
        faster = f"x{sampled[0] / exact[0]:.1f} faster than sampling"
        rows.append({"what": f"vote, {profile}, exact", "seconds": exact[0], "decoded": exact[1], "ratio": faster})
    for profile in ("full", "compact"):
        cold, warmed = step(f"ours, {profile}: arguments"), step(f"ours, {profile}: arguments, warmed")
        cost = step(f"ours, {profile}: warm-up of the next adapter")
        rows.append({"what": f"arguments, {profile}", "seconds": cold[0], "decoded": cold[1], "ratio": "x1.0"})
        faster = f"x{cold[0] / warmed[0]:.1f} faster, after a warm-up of {cost[0]:.3f} s"
        rows.append({"what": f"arguments, {profile}, warmed", "seconds": warmed[0], "decoded": warmed[1], "ratio": faster})
    return rows


def _system(text: str) -> JsonObject:
    return {"role": "system", "content": text}


if __name__ == "__main__":
    main()
