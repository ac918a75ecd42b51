"""What a tool is called where the tools of all toolsets stand in one list: `<toolset>__<tool>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SEPARATOR = "__"

# MCP 2026-07-28, server/tools, "Tool Names".
_ALLOWED = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


def public_name(toolset: str, tool: str) -> str | None:
    """The tool's name in the common list; None when MCP forbids it, or when it could be read as another toolset's tool."""
    if SEPARATOR in toolset or toolset.endswith("_"):
        return None
    name = f"{toolset}{SEPARATOR}{tool}"
    return name if _ALLOWED.fullmatch(name) else None


def toolset_and_tool(name: str) -> tuple[str, str]:
    """The opposite of `public_name`; both are empty for what is no such name."""
    toolset, separator, tool = name.partition(SEPARATOR)
    return (toolset, tool) if separator else ("", "")


def unnameable(toolsets: Iterable[tuple[str, Iterable[str]]]) -> Iterator[str]:
    """`toolset.tool` of each tool that cannot stand in the common list."""
    for toolset, tools in toolsets:
        yield from (f"{toolset}.{tool}" for tool in tools if public_name(toolset, tool) is None)
