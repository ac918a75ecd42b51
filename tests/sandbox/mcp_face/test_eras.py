"""What the newer era allows in lists and results, put so that clients of the older one can read it."""

from __future__ import annotations

import mcp_types as types
import pytest

from services.sandbox.mcp_face.eras import result_for, tool_for

OLDER, NEWER = "2025-11-25", "2026-07-28"
ANY = {"type": "object", "properties": {"any": True, "none": False, "text": {"type": "string"}}}


@pytest.mark.parametrize("output", [{"type": "array"}, {"oneOf": [{"type": "object"}, {"type": "array"}]}, {}])
def test_a_schema_that_need_not_be_an_object_is_for_the_newer_era_only(output: dict[str, object]) -> None:
    tool = types.Tool(name="a", input_schema={"type": "object"}, output_schema=output)
    assert tool_for(NEWER, tool) == tool
    assert tool_for(OLDER, tool) == tool.model_copy(update={"output_schema": None})


def test_boolean_properties_are_spelled_out_for_the_older_era() -> None:
    tool = types.Tool(name="a", input_schema=ANY, output_schema=ANY)
    meant = {"type": "object", "properties": {"any": {}, "none": {"not": {}}, "text": {"type": "string"}}}
    assert tool_for(NEWER, tool) == tool
    assert tool_for(OLDER, tool) == tool.model_copy(update={"input_schema": meant, "output_schema": meant})


@pytest.mark.parametrize(
    ("content", "expected"),
    [([], "[1,2]"), ([types.TextContent(type="text", text="one and two")], "one and two")],
)
def test_a_structured_result_that_is_no_object_is_text_for_the_older_era(
    content: list[types.ContentBlock], expected: str
) -> None:
    result = types.CallToolResult(content=content, structured_content=[1, 2])
    assert result_for(NEWER, result) == result
    said = result_for(OLDER, result)
    assert said.structured_content is None
    assert said.content == [types.TextContent(type="text", text=expected)]


def test_a_structured_result_that_is_an_object_stays() -> None:
    result = types.CallToolResult(content=[], structured_content={"rows": 3})
    assert result_for(OLDER, result) == result
