"""Whether a tool's `parameters` is a JSON Schema that can be used: the same answer at the gateway's door and in the argument
service."""

from __future__ import annotations

import json
from functools import lru_cache

import jsonschema_rs

from services.shared.contracts.errors import InvalidToolSchema
from services.shared.contracts.tools import Tool, canonical_json

# A hostile `pattern` must not stop a service.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1_000_000)


def compiled_schema(tool: Tool) -> jsonschema_rs.Validator:
    """The validator of the tool's arguments; agents repeat their tools in every request, so it is kept.

    Raises:
        InvalidToolSchema: `parameters` is no JSON Schema, not one of an object, or refers to something outside itself.
    """
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        raise InvalidToolSchema(f"the parameters of tool {tool.name!r} have type {kind!r}; arguments are always an object")
    try:
        return _compiled(canonical_json({"type": "object", **tool.parameters}))
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "message", None) or error).split("\n", 1)[0]
        raise InvalidToolSchema(f"the parameters of tool {tool.name!r} are not a usable JSON Schema: {reason:.300}") from error


@lru_cache(maxsize=2048)
def _compiled(schema: str) -> jsonschema_rs.Validator:
    parsed = json.loads(schema)
    jsonschema_rs.meta.validate(parsed)
    return jsonschema_rs.validator_for(parsed, pattern_options=_PATTERNS, offline=True)
