"""Names in the common list: unambiguous, and such that MCP allows them."""

from __future__ import annotations

import pytest

from services.sandbox.mcp_face.names import public_name, toolset_and_tool, unnameable


@pytest.mark.parametrize(("toolset", "tool"), [("files", "read"), ("a_b", "c"), ("a", "_b"), ("a", "b__c"), ("fn-x", "run.it")])
def test_a_name_leads_back_to_its_toolset_and_tool(toolset: str, tool: str) -> None:
    name = public_name(toolset, tool)
    assert name is not None
    assert toolset_and_tool(name) == (toolset, tool)


@pytest.mark.parametrize(("toolset", "tool"), [("a__b", "c"), ("a_", "b"), ("a", "b" * 126), ("a", "é"), ("a", "b c")])
def test_what_would_be_ambiguous_or_is_not_allowed_has_no_name(toolset: str, tool: str) -> None:
    assert public_name(toolset, tool) is None
    assert list(unnameable([(toolset, [tool])])) == [f"{toolset}.{tool}"]


def test_what_has_no_separator_is_nobodys() -> None:
    assert toolset_and_tool("read") == ("", "")
