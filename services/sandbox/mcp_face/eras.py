"""What clients of before 2026-07-28 can read: schemas and structured results are objects there, and a schema's properties, too.

A client that finds anything else in a list refuses all of it, the tools of other toolsets included.
"""

from __future__ import annotations

import mcp_types as types
import orjson
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from services.shared.contracts.tools import JsonObject


def tool_for(version: str, tool: types.Tool) -> types.Tool:
    """`tool` as a client of that protocol version can read it; a result's schema that it cannot read is left out."""
    if version in MODERN_PROTOCOL_VERSIONS:
        return tool
    output = tool.output_schema
    return tool.model_copy(
        update={
            "input_schema": _spelled_out(tool.input_schema),
            "output_schema": _spelled_out(output) if output and output.get("type") == "object" else None,
        }
    )


def result_for(version: str, result: types.CallToolResult) -> types.CallToolResult:
    """`result` as a client of that protocol version can read it; a structured result that is no object becomes text."""
    structured = result.structured_content
    if version in MODERN_PROTOCOL_VERSIONS or structured is None or isinstance(structured, dict):
        return result
    text = types.TextContent(type="text", text=orjson.dumps(structured).decode())
    return result.model_copy(update={"structured_content": None, "content": result.content or [text]})


def _spelled_out(schema: JsonObject) -> JsonObject:
    """Where a property's schema is `true` or `false`, the object that means the same."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    meant: dict[bool, JsonObject] = {True: {}, False: {"not": {}}}
    return {
        **schema,
        "properties": {name: meant[each] if isinstance(each, bool) else each for name, each in properties.items()},
    }
