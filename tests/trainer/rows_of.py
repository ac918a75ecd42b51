"""A small toolset and conversations about it, for tests of single steps."""

from __future__ import annotations

import json
from typing import Any

from services.shared.contracts.tools import JsonObject, Tool
from trainer.trajectories import Trajectory

TOOLS = [
    Tool(
        name="read_file",
        description="Reads.",
        parameters={
            "type": "object",
            "properties": {"path": {"type": "string"}, "head": {"type": "integer"}, "mode": {"enum": ["text", "bytes"]}},
            "required": ["path"],
        },
    ),
    Tool(
        name="tag",
        description="Tags.",
        parameters={
            "type": "object",
            "properties": {
                "labels": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
                }
            },
        },
    ),
    Tool(name="roots", description="Roots."),
]


def call(tool: str, call_id: str = "call_1", **arguments: Any) -> JsonObject:
    return {"id": call_id, "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}


def turn(*calls: JsonObject) -> JsonObject:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(text: str, call_id: str = "call_1") -> JsonObject:
    return {"role": "tool", "tool_call_id": call_id, "name": "read_file", "content": text}


def conversation(
    *middle: JsonObject, asked: str = "Show me a.txt", answer: str | None = "There.", failed: list[str] | None = None, **more: Any
) -> Trajectory:
    """A trajectory: what the user asks, `middle`, and an answer."""
    messages = [{"role": "user", "content": asked}, *middle]
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    shown = [tool.openai() for tool in TOOLS]
    fields: dict[str, Any] = {"id": "t", "source": "test", "kind": "read", **more}
    return Trajectory(messages=messages, tools=shown, failed=failed or [], **fields)


def read(path: str = "a.txt", **more: Any) -> Trajectory:
    """One good call with its result."""
    return conversation(turn(call("read_file", path=path)), result("hello"), **more)
