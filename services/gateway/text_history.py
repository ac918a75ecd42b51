"""Tool calls and their results where a client writes them into a conversation as plain text.

Source: huggingface/smolagents, `memory.py`, `ActionStep.to_messages`: the assistant says `Calling tools:` and a Python literal,
the user answers with `Observation:` or `Error:`. What cannot be read is text like any other.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from services.shared.contracts.tools import JsonObject

_CALLS = re.compile(r"(?:\A|\n)Calling tools:\n(\[.*\])\s*\Z", re.DOTALL)
# The id of the call differs each time, the error that follows may not.
_RESULT = re.compile(r"\s*(?:Observation:\s*|(?:Call id: [^\n]*\n)?(?=Error:\n))")

# Characters of a literal. Parsing one holds up every other request, and calls are short.
_LONGEST = 16 * 1024


def written_calls(text: str) -> list[JsonObject]:
    """The calls (`id`, `function` with `name` and `arguments` as JSON text) that an assistant's text makes; none for others."""
    found = _CALLS.search(text) if "Calling tools:\n[" in text and len(text) <= _LONGEST else None
    try:
        entries = ast.literal_eval(found[1]) if found else []
        return [_call(entry) for entry in entries]
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError):
        return []


def written_result(text: str) -> str | None:
    """The result that a user's text reports; None for text that reports none."""
    found = _RESULT.match(text)
    return text[found.end() :].strip() if found else None


def _call(entry: Any) -> JsonObject:
    function = entry["function"]
    name, arguments = function["name"], function["arguments"]
    if not isinstance(name, str):
        raise TypeError("a tool's name is text")
    return {
        "id": str(entry["id"]),
        "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)},
    }
