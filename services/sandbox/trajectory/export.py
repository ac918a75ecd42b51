"""The log as others read it: the trainer's trajectories, and ATIF documents (Agent Trajectory Interchange Format, v1.7).

The sandbox sees calls and results, and never what a user said: those conversations are in the gateway's decision log. What was
kept without its texts, or not whole, cannot be exported; the reasons are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from services.sandbox.trajectory import chain
from services.sandbox.trajectory.records import record_of
from services.sandbox.trajectory.store import lines_of
from services.shared.contracts.tools import JsonObject, sha256_of

ATIF = "ATIF-v1.7"


@dataclass(frozen=True)
class Recorded:
    """A call: its start record and, where it came to that, its end record."""

    start: JsonObject
    end: JsonObject | None

    @property
    def arguments(self) -> str:
        """JSON text."""
        return str(self.start["arguments"]["text"]) or "{}"

    @property
    def answer(self) -> str:
        """What a model would have read: the text of the result, or why there is none."""
        assert self.end is not None
        result = self.end["result"]
        if "error" in result:
            return str(result["error"]["text"])
        return "\n".join(block["text"] if block["type"] == "text" else f"[{block['type']}]" for block in result["content"])


@dataclass
class Export:
    """Documents by name, and how many trajectories could not become one, by reason."""

    documents: dict[str, JsonObject] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


Writer = Callable[[str, list[Recorded], list[JsonObject]], JsonObject]


def exported(paths: Iterable[Path], tools: Mapping[str, JsonObject], write: Writer) -> Export:
    """One document per trajectory. `tools` are definitions in OpenAI's form by the tool digest that records carry."""
    export = Export()
    for (tenant, name), calls in _trajectories(paths).items():
        if problem := _problem(calls, tools):
            export.left_out[problem] += 1
            continue
        used = {call.start["tool_digest"]: tools[call.start["tool_digest"]] for call in calls}
        key = sha256_of([tenant, name, calls[0].start["seq"]])[:16]
        export.documents[key] = write(key, calls, list(used.values()))
    return export


def to_trainer(key: str, calls: list[Recorded], tools: list[JsonObject]) -> JsonObject:
    """As trainer/trajectories.py writes it."""
    messages: list[JsonObject] = []
    for call in calls:
        call_id, name = f"call_{call.start['seq']}", call.start["tool"]
        function = {"name": name, "arguments": call.arguments}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": call_id, "name": name, "content": call.answer},
        ]
    failed = [f"call_{call.start['seq']}" for call in calls if call.end is not None and call.end["outcome"] != "ok"]
    kind = calls[0].start["tool"]
    return {"id": key, "source": "sandbox", "kind": kind, "failed": failed, "messages": messages, "tools": tools}


def to_atif(key: str, calls: list[Recorded], tools: list[JsonObject]) -> JsonObject:
    """An ATIF trajectory; each call is a step of its agent, whose other words the sandbox has not heard."""
    steps = []
    for number, call in enumerate(calls, 1):
        assert call.end is not None
        call_id = f"call_{call.start['seq']}"
        arguments = orjson.loads(call.arguments)
        told = {name: call.end[name] for name in ("outcome", "code", "reason", "usage")}
        steps.append(
            {
                "step_id": number,
                "timestamp": call.start["time"],
                "source": "agent",
                "message": "",
                "tool_calls": [{"tool_call_id": call_id, "function_name": call.start["tool"], "arguments": arguments}],
                "observation": {"results": [{"source_call_id": call_id, "content": call.answer}]},
                "extra": {**told, "toolset": call.start["toolset"], "driver": call.start["driver"]},
            }
        )
    return {
        "schema_version": ATIF,
        "session_id": calls[0].start["trajectory_id"],
        "trajectory_id": key,
        "agent": {"name": "agentflux-sandbox", "version": chain.SCHEMA, "tool_definitions": tools},
        "steps": steps,
        "notes": "Calls and results as the sandbox saw them; what users and models said is not known to it.",
        "final_metrics": {"total_steps": len(steps)},
    }


def _trajectories(paths: Iterable[Path]) -> dict[tuple[str, str], list[Recorded]]:
    starts: dict[int, JsonObject] = {}
    ends: dict[int, JsonObject] = {}
    for row in _rows(paths):
        if row["event"] == "start":
            starts[row["seq"]] = row
        elif row["event"] == "end":
            ends[row["started"]] = row
    found: dict[tuple[str, str], list[Recorded]] = {}
    for number, start in sorted(starts.items()):
        found.setdefault((start["tenant"], start["trajectory_id"]), []).append(Recorded(start, ends.get(number)))
    return found


def _rows(paths: Iterable[Path]) -> Iterator[JsonObject]:
    for path in paths:
        for number, line in enumerate(lines_of(path), 1):
            try:
                yield record_of(line)
            except ValueError as error:
                if line.endswith(b"\n"):
                    raise ValueError(f"{path}:{number} is not as it was written: {error}") from None


def _problem(calls: list[Recorded], tools: Mapping[str, JsonObject]) -> str:
    """Why these calls cannot be a document; empty when they can."""
    for call in calls:
        if call.end is None or call.end["outcome"] == "aborted":
            return "a call has no result: the sandbox died, or it is still running"
        if "text" not in call.start["arguments"] or "result" not in call.end:
            return "texts were not kept (AGENTFLUX_SANDBOX_TRAJECTORY_TEXT=true keeps them from then on)"
        if call.start["arguments"].get("cut") or any(block.get("cut") for block in call.end["result"].get("content", [])):
            return "a text was too long and is not whole"
        if call.start["tool_digest"] not in tools:
            return "a tool is not, or no longer, described below the toolsets directory"
        try:
            if not isinstance(orjson.loads(call.arguments), dict):
                return "arguments are no JSON object"
        except ValueError:
            return "arguments are no JSON object"
    return ""
