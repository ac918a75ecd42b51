"""The MCP door: tools/list and tools/call of all toolsets in one server, both protocol eras, through the same runner as gRPC.

At /mcp each tool is called `<toolset>__<tool>`; at /mcp/<toolset> are the tools of one toolset under their own names.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import mcp_types as types
import orjson
import structlog
from mcp import MCPError
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import TypeAdapter
from starlette.requests import Request

from services.sandbox.errors import SandboxError, UnknownTool, UnknownToolset
from services.sandbox.limits import Block
from services.sandbox.mcp_face.eras import result_for, tool_for
from services.sandbox.mcp_face.names import public_name, toolset_and_tool, unnameable
from services.sandbox.pinning import PinnedTool
from services.sandbox.runner import Call, Result, Runner
from services.shared.contracts.tools import canonical_json

# Calls that carry the same value here, in `_meta`, share one server process, as with `session_id` over gRPC.
SESSION_KEY = "agentflux/session"
MAX_SESSION_CHARS = 256
REASON_KEY = "agentflux/reason"
TRUNCATED_KEY = "agentflux/truncated"
# A changed toolset is seen by clients after this time at the latest. Milliseconds.
LIST_TTL_MS = 60_000

log = structlog.get_logger()

_content: TypeAdapter[types.ContentBlock] = TypeAdapter(types.ContentBlock)

Context = ServerRequestContext[Any, Request]


class McpDoor:
    """The handlers of one MCP server in front of a `Runner`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.server: Server[Any] = Server(
            "agentflux-sandbox",
            version="0.1.0",
            title="AgentFlux sandbox",
            instructions="Tools of several MCP servers, each run in a sandbox. A name before `__` is the toolset.",
            # Private, for one day a tenant may see tools of its own.
            cache_hints={"tools/list": CacheHint(LIST_TTL_MS, "private"), "server/discover": CacheHint(LIST_TTL_MS, "private")},
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def _list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        if toolset := _toolset_of(context):
            try:
                tools = [_tool(tool, tool.tool.name) for tool in self._runner.list_pinned(toolset, _tenant_of(context))]
            except SandboxError as error:
                raise MCPError(types.INVALID_PARAMS, error.message) from None
        else:
            tools = self._all_tools(_tenant_of(context))
        readable = [tool_for(context.protocol_version, tool) for tool in tools]
        return types.ListToolsResult(tools=sorted(readable, key=lambda tool: tool.name))

    def _all_tools(self, tenant: str) -> list[types.Tool]:
        listed = [(info.name, self._tools_of(info.name, tenant)) for info in self._runner.list_toolsets(tenant)]
        if left_out := list(unnameable((toolset, [tool.tool.name for tool in tools]) for toolset, tools in listed)):
            log.warning("tools without a name that MCP allows are not listed", tools=left_out[:8])
        named = [(tool, public_name(toolset, tool.tool.name)) for toolset, tools in listed for tool in tools]
        return [_tool(tool, name) for tool, name in named if name is not None]

    def _tools_of(self, toolset: str, tenant: str) -> list[PinnedTool]:
        # One toolset that cannot be used must not take the others' tools away.
        try:
            return self._runner.list_pinned(toolset, tenant)
        except SandboxError as error:
            log.warning("toolset not listed", toolset=toolset, error=error.message)
            return []

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        own = _toolset_of(context)
        toolset, tool = (own, params.name) if own else toolset_and_tool(params.name)
        call = Call(
            toolset=toolset,
            tool=tool,
            arguments=canonical_json(params.arguments or {}).encode("utf-8", "surrogatepass"),
            session_id=_session_of(context),
            call_id=uuid.uuid4().hex,
            tenant=_tenant_of(context),
            on_progress=context.session.report_progress,
        )
        try:
            result = await self._runner.call(call)
        except (UnknownToolset, UnknownTool) as error:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name[:128]!r}: {error.message}") from None
        except SandboxError as error:
            # As a result and not as a protocol error, for it is the model that can do something about most of them.
            log.warning("call failed", toolset=toolset, tool=tool, reason=error.reason, error=error.message)
            said = types.TextContent(type="text", text=error.message)
            return types.CallToolResult(content=[said], is_error=True, _meta={REASON_KEY: error.reason})
        # As at the gRPC door, only failures are news.
        (log.info if result.is_error else log.debug)(
            "tool called", toolset=toolset, tool=tool, is_error=result.is_error, run_ms=round(result.run_s * 1000, 1),
            cold_start=result.cold_start, output_bytes=result.output_bytes,
        )  # fmt: skip
        if result.truncated and not result.structured and self._promises_structure(call):
            # Without it the client would refuse the whole result; as an error it may come without.
            result = replace(result, is_error=True)
        return result_for(context.protocol_version, _result(result))

    def _promises_structure(self, call: Call) -> bool:
        tools = self._runner.list_pinned(call.toolset, call.tenant)
        return any(tool.output_schema is not None for tool in tools if tool.tool.name == call.tool)


def _request_of(context: Context) -> Request:
    assert context.request is not None, "the face is served over HTTP only"
    return context.request


def _toolset_of(context: Context) -> str:
    """The toolset in the path; empty at /mcp."""
    return str(_request_of(context).path_params.get("toolset", ""))


def _tenant_of(context: Context) -> str:
    user = _request_of(context).scope.get("user")
    return user.access_token.client_id if isinstance(user, AuthenticatedUser) else Call.tenant


def _session_of(context: Context) -> str:
    """What a session's servers belong to: the caller's own word, else the session of the older era; empty for neither."""
    said = (context.meta or {}).get(SESSION_KEY, _request_of(context).headers.get("mcp-session-id", ""))
    if not isinstance(said, str) or len(said) > MAX_SESSION_CHARS:
        shown = f"a string of {len(said)}" if isinstance(said, str) else f"{said!r:.80}"
        raise MCPError(
            types.INVALID_PARAMS, f"_meta {SESSION_KEY} must be a string of at most {MAX_SESSION_CHARS} characters, not {shown}"
        )
    return said


def _tool(pinned: PinnedTool, name: str) -> types.Tool:
    return types.Tool(
        name=name,
        title=pinned.title,
        description=pinned.tool.description,
        input_schema=pinned.tool.parameters,
        output_schema=pinned.output_schema,
        annotations=types.ToolAnnotations.model_validate(pinned.annotations) if pinned.annotations else None,
    )


def _result(result: Result) -> types.CallToolResult:
    return types.CallToolResult(
        content=[_block(block) for block in result.blocks],
        structured_content=orjson.loads(result.structured) if result.structured else None,
        is_error=result.is_error,
        _meta={TRUNCATED_KEY: True} if result.truncated else None,
    )


def _block(block: Block) -> types.ContentBlock:
    return _content.validate_json(block.json) if block.text is None else types.TextContent(type="text", text=block.text)
