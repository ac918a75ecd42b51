"""Running a tool: toolsets, calls and results as the sandbox's callers see them. The wire is proto/toolrunner/v1."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel

from services.shared.contracts.tools import JsonObject, Tool


class ToolsetInfo(BaseModel):
    """A registered toolset and whether its MCP server can be started; `reason` says why not."""

    name: str
    description: str = ""
    ready: bool
    reason: str = ""


class RegisteredFunction(BaseModel):
    """A Python function that a tenant registered; it is called as the tool `name` of `toolset`.

    `version` counts what the own tenant registered under the name, 0 where another one did. `advice` and `source` are there
    where somebody asked for them.
    """

    name: str
    description: str
    parameters: JsonObject
    toolset: str
    digest: str
    version: int
    approved: bool
    callable: bool
    advice: list[str] = []
    source: str = ""


class ToolCallSpec(BaseModel):
    """One call. `arguments` is JSON text of an object; calls with the same `session_id` share one server process."""

    toolset: str
    tool: str
    arguments: str
    session_id: str = ""
    call_id: str = ""


class ContentPart(BaseModel):
    """One MCP content block; `text` for type text, otherwise the block as JSON in `data`."""

    type: str
    text: str = ""
    data: JsonObject | None = None


class ToolResult(BaseModel):
    """What the tool said. `tool_error` is a normal outcome: the tool ran and reports that it failed."""

    outcome: Literal["ok", "tool_error"]
    content: list[ContentPart] = []
    structured: JsonObject | None = None
    truncated: bool = False
    cold_start: bool = False
    timings: dict[str, float] = {}

    @property
    def text(self) -> str:
        """All text parts, joined by newlines: what goes into a `tool` message."""
        return "\n".join(part.text if part.type == "text" else f"[{part.type}]" for part in self.content)


class ToolRunner(Protocol):
    """Whoever can list and run the tools of a toolset, isolated."""

    async def list_toolsets(self) -> list[ToolsetInfo]: ...

    async def list_tools(self, toolset: str) -> list[Tool]: ...

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult: ...
