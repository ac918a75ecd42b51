"""Whether arguments satisfy their tool's schema, and what of that schema a grammar can follow."""

from __future__ import annotations

import json
from typing import Any

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool


def problem(tool: Tool, text: str) -> str | None:
    """One sentence on what is wrong with arguments written as JSON `text`, or None.

    Raises:
        InvalidToolSchema: the tool's schema cannot be used.
    """
    validator = compiled_schema(tool)
    try:
        arguments = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    if not isinstance(arguments, dict):
        return "not a JSON object"
    for found in validator.iter_errors(arguments):
        where = "/".join(str(part) for part in found.instance_path)
        return f"{where}: {found.message:.300}" if where else f"{found.message:.300}"
    return None


def grammar_schema(tool: Tool) -> JsonObject:
    """The schema as the engine's grammar compiler gets it: without the annotations that it does not know."""
    stripped = _without_annotations({"type": "object", **tool.parameters})
    assert isinstance(stripped, dict)
    return stripped


def _without_annotations(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_annotations(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in ("$schema", "title", "examples", "default") and not isinstance(value, dict):
            continue
        # Below `properties` the keys are names of the user's, and `title` may be one of them.
        kept[key] = (
            {name: _without_annotations(part) for name, part in value.items()}
            if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict)
            else value
            if key in ("enum", "const")
            else _without_annotations(value)
        )
    return kept


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
