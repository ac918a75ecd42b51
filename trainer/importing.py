"""Trajectories of others: reads the format of the AgentFlux reference implementation, whose teachers leave many defects.

    python -m trainer.importing --rows theirs.jsonl --out build/train/filesystem/trajectories.jsonl

A row of theirs is {model, messages, tools}. What can be told without guessing is put right (arguments as objects, calls
without ids); everything else stays as it is, and the gates of the dataset step judge it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.shared.contracts.tools import JsonObject, sha256_of
from trainer.episodes import write_rows
from trainer.trajectories import Trajectory

SOURCE = "agentflux"
# How their tools and their inference engine report a failure; there is no flag for it.
_FAILURES = ("error:", "enoent", "eacces", "eisdir", "access denied", "mcp error", "inference engine error")


def imported(path: Path) -> Iterator[Trajectory | str]:
    """Each row as a trajectory, or a sentence that says why it cannot be read."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _trajectory(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    yield f"{path}:{number}: {type(error).__name__}: {error}"


def _trajectory(row: Any) -> Trajectory:
    messages, failed = [], []
    waiting: list[str] = []
    for number, message in enumerate(row["messages"]):
        made: JsonObject = {"role": message["role"], "content": message.get("content")}
        if message.get("tool_calls"):
            made["tool_calls"] = [_call(call, f"call_{number}_{i}") for i, call in enumerate(message["tool_calls"])]
            waiting = [call["id"] for call in made["tool_calls"]]
        if message["role"] == "tool":
            # Results come in the order of the calls; an id that nobody used is one that was lost.
            given = message.get("tool_call_id")
            made["tool_call_id"] = given if given in waiting or not waiting else waiting[0]
            waiting = [call_id for call_id in waiting if call_id != made["tool_call_id"]]
            if str(made["content"]).lower().startswith(_FAILURES):
                failed.append(made["tool_call_id"])
        messages.append(made)
    kind = next((call["function"]["name"] for message in messages for call in message.get("tool_calls", [])), "answer")
    return Trajectory(id=sha256_of(row)[:16], source=SOURCE, kind=kind, failed=failed, messages=messages, tools=row["tools"])


def _call(call: Any, otherwise: str) -> JsonObject:
    arguments = call["function"].get("arguments")
    # Their cleaning step turns the JSON text into an object; a client has it as text.
    text = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
    return {
        "id": call.get("id") or otherwise,
        "type": "function",
        "function": {"name": call["function"]["name"], "arguments": text},
    }


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = list(imported(args.rows))
    write_rows(args.out, (row for row in found if isinstance(row, Trajectory)))
    print("\n".join(row for row in found if isinstance(row, str)))


if __name__ == "__main__":
    main()
