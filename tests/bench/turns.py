"""How long a turn takes on a running deployment (`make up` first): whole tool calls, and exact against sampled votes.

The two strategies are measured turn by turn in one run, so that a busy machine is equally unkind to both. Prints a table and
writes it to build/bench/turns.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx

from deploy.local.plan import REPOSITORY, LocalSettings
from deploy.local.progress import Progress

ROUNDS = 7
QUESTIONS = [
    "Read the file README.txt",
    "Create the directory drafts",
    "Move a.txt to b.txt",
    "Search for pdf files in reports",
    "List allowed directories",
]


def main() -> None:
    """Measures, prints, writes."""
    settings, progress = LocalSettings(), Progress()
    tools = [tool["function"] for tool in json.loads((REPOSITORY / "deploy/toolsets/filesystem/tools.json").read_text())]
    seconds: dict[str, list[float]] = {}

    def measure(name: str, service: str, path: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{settings.port(service)}{path}"
        seconds.setdefault(name, []).append(_timed(lambda: httpx.post(url, json=body, timeout=300).raise_for_status()))

    unread = [{"role": "system", "content": f"Run {time.time()}"}, {"role": "user", "content": QUESTIONS[0]}]
    measure("tool call, prompt not read before", "gateway", "/v1/chat/completions", {"model": "filesystem", "messages": unread})
    for _ in range(ROUNDS):
        for question in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            required = {"model": "filesystem", "messages": messages, "tool_choice": "required"}
            measure("tool call, tools read before", "gateway", "/v1/chat/completions", required)
            for strategy in ("exact", "sample"):
                vote = {"tools": tools, "messages": messages, "strategy": strategy}
                measure(f"vote, {strategy}", "selector", "/v1/select", vote)
    rows = [
        {"what": name, "n": len(took), "median_s": statistics.median(took), "max_s": max(took)} for name, took in seconds.items()
    ]
    for row in rows:
        progress.show(f"{row['what']:36} n={row['n']:<3} median {row['median_s']:6.3f} s   max {row['max_s']:6.3f} s")
    target = REPOSITORY / "build" / "bench" / "turns.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
