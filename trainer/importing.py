"""Trajectories of others: rows of the AgentFlux reference implementation, or decisions that were logged in live traffic.

    python -m trainer.importing --rows theirs.jsonl --out build/train/filesystem/trajectories.jsonl
    python -m trainer.importing --format decisions --toolset filesystem --rows decision-log/ --out trajectories.jsonl

A row of AgentFlux is {model, messages, tools}; its teachers leave many defects. What can be told without guessing is put right
(arguments as objects, calls without ids); everything else stays as it is, and the gates of the dataset step judge it.
A decision is described in trainer/decisions.py. Nobody's traffic is read unless this is run on it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from services.shared.contracts.redaction import Redactor
from services.shared.contracts.tools import JsonObject, Tool, sha256_of
from trainer.command import status_of
from trainer.decisions import Imported, Judgement, Record, conversations, judged
from trainer.episodes import write_rows
from trainer.trajectories import Drop, Trajectory

Row = TypeVar("Row", bound=BaseModel)

# How tools and their inference engine report a failure; there is no flag for it.
_FAILURES = ("error:", "enoent", "eacces", "eisdir", "access denied", "mcp error", "inference engine error")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def imported(path: Path) -> Iterator[Trajectory | str]:
    """Each row of AgentFlux as a trajectory, or a sentence that says why it cannot be read."""
    for where, line in _lines(path):
        try:
            yield _read_row(line)
        except _UNREADABLE as error:
            yield f"{where}: {type(error).__name__}: {error}"


def finished(paths: Iterable[Path], tools: Sequence[Tool]) -> Iterator[Trajectory | Drop]:
    """The conversations of these files, to be learned with `tools`; a row that cannot be read is a drop that says where it is.

    A row is {messages, tools}, as AgentFlux and OpenAI's clients have it, or a whole Trajectory.
    """
    shown = [tool.openai() for tool in tools]
    for where, line in (found for path in paths for found in _lines(path)):
        try:
            # What serves are the tools of the toolset, whatever a conversation was had with.
            yield _read_row(line).model_copy(update={"tools": shown})
        except _UNREADABLE as error:
            reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
            yield Drop(id=where, kind="", rule="unreadable", reason=reason, row_sha256=hashlib.sha256(line).hexdigest())


def _read_row(line: bytes) -> Trajectory:
    row = json.loads(line)
    # Half of a character, which JSON can spell, could be written to no file later on.
    json.dumps(row, ensure_ascii=False).encode()
    return Trajectory.model_validate(row) if {"id", "source", "kind"} <= row.keys() else _trajectory(row, "agentflux")


def imported_decisions(path: Path, toolset: str | None = None) -> Imported:
    """The conversations in a log of live traffic, of one toolset or of all, without secrets and without what was judged wrong.

    `path` is one file, or the folder of a gateway's decision log, feedback included.
    """
    result = Imported()
    records = [each for each in _read(path, "decisions", Record, result) if toolset in (None, each.toolset)]
    judgements = list(_read(path, "feedback", Judgement, result)) if path.is_dir() else []
    for conversation in conversations(judged(records, judgements), result):
        redactor = Redactor()
        row = redactor.redacted({"messages": conversation.messages, "tools": conversation.tools})
        try:
            result.rows.append(_trajectory(row, "decisions"))
        except _UNREADABLE as error:
            result.problems.append(f"{path}: a conversation: {type(error).__name__}")
            continue
        result.redacted += redactor.found
    return result


def _read(path: Path, name: str, shape: type[Row], result: Imported) -> Iterator[Row]:
    # Names begin with the time, and so does the order of feedback.
    for file in sorted(path.glob(f"{name}-*.jsonl")) if path.is_dir() else [path]:
        for where, line in _lines(file):
            try:
                yield shape.model_validate_json(line)
            except ValueError as error:
                # pydantic would quote the input, and this is not redacted yet.
                result.problems.append(f"{where}: {type(error).__name__}")


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    # As bytes, so that what is no text concerns one line and not the whole file.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", line


def _trajectory(row: Any, source: str) -> Trajectory:
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
    return Trajectory(id=sha256_of(row)[:16], source=source, kind=kind, failed=failed, messages=messages, tools=row["tools"])


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", choices=("agentflux", "decisions"), default="agentflux")
    parser.add_argument("--toolset", help="of decisions, only those for this toolset")
    args = parser.parse_args()
    if args.format == "decisions":
        result = imported_decisions(args.rows, args.toolset)
        write_rows(args.out, result.rows)
        print("\n".join([*result.problems, json.dumps(result.report())]))
        return
    found = list(imported(args.rows))
    write_rows(args.out, (row for row in found if isinstance(row, Trajectory)))
    print("\n".join(row for row in found if isinstance(row, str)))


if __name__ == "__main__":
    raise SystemExit(status_of(main))
