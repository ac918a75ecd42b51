"""Which trajectories may teach: each rule looks at one and gives the first thing that is wrong with it, or None.

Cheap rules come first, for each may rely on those before it. `RULES` is their order; a report counts drops by these names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.messages import normalised
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.trajectories import Trajectory

Rule = Callable[[Trajectory], str | None]

# What a path may hold without anybody having said it: the workspace's own name, "here", "above" and the signs of patterns.
_UNSAID = {"", ".", "..", "workspace"}


def shape(row: Trajectory) -> str | None:
    """The messages are a conversation that a client could send, and the tools are tools."""
    try:
        normalised(row.messages)
        tools = tools_of(row)
    except (AgentFluxError, KeyError, TypeError, ValueError) as error:
        return str(error).split("\n", 1)[0]
    if len({tool.name for tool in tools}) < len(tools):
        return "two tools bear the same name"
    for tool in tools:
        try:
            compiled_schema(tool)
        except AgentFluxError as error:
            return error.message
    return None if any(message.get("role") == "user" for message in row.messages) else "nobody asks anything"


def arguments_parse(row: Trajectory) -> str | None:
    """Every call has the JSON text of an object."""
    for call in calls_of(row):
        text = call["function"].get("arguments")
        try:
            parsed = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            return f"call {call.get('id')}: the arguments {str(text)[:60]!r} are not the JSON text of an object"
    return None


def tool_exists(row: Trajectory) -> str | None:
    """No call of a tool that is not there."""
    known = {tool.name for tool in tools_of(row)}
    return next((f"there is no tool {name!r}" for name in map(_name, calls_of(row)) if name not in known), None)


def schema(row: Trajectory) -> str | None:
    """The arguments satisfy the tool's whole JSON Schema; a call that failed by mistake may not."""
    tools = {tool.name: tool for tool in tools_of(row)}
    for call in calls_of(row):
        if call["id"] in row.mistakes:
            continue
        arguments = json.loads(call["function"]["arguments"])
        for found in compiled_schema(tools[_name(call)]).iter_errors(arguments):
            return f"{_name(call)}: {found.message:.200}"
        if strangers := _strangers(arguments, tools[_name(call)].parameters):
            return f"{_name(call)}: {sorted(strangers)} are not among the parameters"
    return None


def _strangers(arguments: JsonObject, parameters: JsonObject) -> set[str]:
    # A schema that says nothing of further properties lets anything through; nobody means that.
    if parameters.get("additionalProperties") or "patternProperties" in parameters:
        return set()
    return set(arguments) - set(parameters.get("properties", arguments))


def pairing(row: Trajectory) -> str | None:
    """Each call is answered once, right after it, and the last word is an answer in text."""
    waiting: list[str] = []
    seen: set[str] = set()
    for message in row.messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return f"result {message.get('tool_call_id')} answers no call before it"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return f"calls {waiting} have no result"
        waiting = [str(call.get("id")) for call in message.get("tool_calls") or []]
        if len(set(waiting)) < len(waiting) or seen & set(waiting):
            return f"a call id of {waiting} is used twice"
        seen |= set(waiting)
    last = row.messages[-1]
    return None if last["role"] == "assistant" and last.get("content") and not waiting else "it does not end with an answer"


def succeeded(row: Trajectory) -> str | None:
    """Not every call was a mistake."""
    ids = [call["id"] for call in calls_of(row)]
    return "every call failed" if ids and set(ids) <= set(row.mistakes) else None


def grounded(row: Trajectory) -> str | None:
    """What a call says was said before: by the user, or by a result. What people accept needs no such proof."""
    said = ""
    for message in row.messages:
        for call in message.get("tool_calls") or []:
            if call["id"] in row.mistakes or call["id"] in row.accepted:
                continue
            for leaf in _leaves(json.loads(call["function"]["arguments"])):
                if not _is_said(leaf, said):
                    return f"{_name(call)}: {leaf!r:.80} comes from nowhere"
        said += f"\n{message.get('content') or ''}" if message["role"] in ("user", "tool") else ""
    return None


def unnamed(row: Trajectory) -> str | None:
    """A user does not know what the tools are called; a row that says so would teach to read the label off the question."""
    if row.names_tool:
        return None
    asked = " ".join(str(message["content"]) for message in row.messages if message["role"] == "user").lower()
    # A name of one word, such as "search", is said by those who know no tool.
    names = (tool.name for tool in tools_of(row) if re.search(r"[a-z0-9]([_.-]|(?=[A-Z]))", tool.name))
    return next(
        (f"the user names the tool {name}" for name in names if re.search(rf"\b{re.escape(name.lower())}\b", asked)), None
    )


RULES: dict[str, Rule] = {
    "shape": shape,
    "arguments": arguments_parse,
    "tool": tool_exists,
    "pairing": pairing,
    "schema": schema,
    "failed": succeeded,
    "groundedness": grounded,
    "leakage": unnamed,
}


def first_flaw(row: Trajectory) -> tuple[str, str] | None:
    """The first rule that the row breaks, and how. What a rule cannot even read breaks it."""
    for name, rule in RULES.items():
        try:
            flaw = rule(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            flaw = f"cannot be read: {type(error).__name__}: {error!s:.200}"
        if flaw is not None:
            return name, flaw
    return None


def tools_of(row: Trajectory) -> list[Tool]:
    """The row's tools."""
    return [Tool(**tool["function"]) for tool in row.tools]


def calls_of(row: Trajectory) -> list[JsonObject]:
    """Every call, in order."""
    return [call for message in row.messages for call in message.get("tool_calls") or []]


def _name(call: JsonObject) -> str:
    return str(call["function"]["name"])


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield value


def _is_said(leaf: object, said: str) -> bool:
    text = str(leaf)
    # A keyword of the schema, such as an enum's value, is no claim about the world.
    return text.strip() in said or text.isidentifier() or _parts_are_said(re.split(r"[/*]+", text), said)


def _parts_are_said(parts: Sequence[str], said: str) -> bool:
    return all(part in _UNSAID or part in said or part.lstrip(".") in said for part in parts)
