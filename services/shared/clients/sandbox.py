"""The sandbox from afar: `ToolRunner` over gRPC, always with a deadline, errors as those of contracts/errors.py."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import propagate

from services.shared.contracts.errors import (
    AgentFluxError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Unavailable,
    UpstreamError,
)
from services.shared.contracts.execution import ContentPart, ToolCallSpec, ToolResult, ToolsetInfo
from services.shared.contracts.tools import JsonObject, Tool
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["ToolRunnerService"].full_name

# Nothing is started for a list; it is there at once or something is wrong.
LIST_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 1.0
# The sandbox keeps to `timeout_s` by itself and explains; our own clock is for when it is gone.
GRACE_S = 1.0

_MAX_REPLY_BYTES = 64 * 1024 * 1024

_ERRORS: dict[grpc.StatusCode, type[AgentFluxError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}

_Reply = TypeVar("_Reply")


class SandboxClient:
    """A `ToolRunner` at `target`, such as 127.0.0.1:8034. Cancelling a call ends its server's process tree."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._opened: grpc.aio.Channel | None = None

    async def aclose(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def ready(self) -> str | None:
        """None when tools can be run, else one sentence that says why not."""
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            reply = await self._ask(health_pb2_grpc.HealthStub(self._channel()).Check, request, READY_TIMEOUT_S)
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return None
            found = await self._ask(self._stub().GetCapabilities, pb.GetCapabilitiesRequest(), READY_TIMEOUT_S)
            return found.problem or f"the sandbox at {self._target} is not serving: it is starting or stopping"
        except AgentFluxError as error:
            return error.message

    async def list_toolsets(self) -> list[ToolsetInfo]:
        """Every registered toolset, ready or not."""
        reply = await self._ask(self._stub().ListToolsets, pb.ListToolsetsRequest(), LIST_TIMEOUT_S)
        return [
            ToolsetInfo(name=toolset.name, description=toolset.description, ready=toolset.ready, reason=toolset.reason)
            for toolset in reply.toolsets
        ]

    async def list_tools(self, toolset: str) -> list[Tool]:
        """The pinned tools of `toolset`.

        Raises:
            NotFound: there is no such toolset.
            InvalidRequest: it is not ready; says what to do.
        """
        reply = await self._ask(self._stub().ListTools, pb.ListToolsRequest(toolset=toolset), LIST_TIMEOUT_S)
        return [
            Tool(name=tool.name, description=tool.description, parameters=json.loads(tool.parameters_json))
            for tool in reply.tools
        ]

    async def call_tool(self, call: ToolCallSpec, *, timeout_s: float) -> ToolResult:
        """Runs one tool, in at most `timeout_s` seconds, the start of its server included.

        Raises:
            InvalidRequest: the arguments do not fit the tool, or the toolset is not ready.
            NotFound: there is no such toolset or tool.
            DeadlineExceeded: the tool did not answer in time and was killed.
            Unavailable: its server died or misbehaved, its output was too large, or the sandbox is busy or not serving.
        """
        wall = Duration()
        wall.FromMilliseconds(int(timeout_s * 1000))
        request = pb.CallToolRequest(
            toolset=call.toolset,
            tool=call.tool,
            arguments_json=call.arguments.encode("utf-8", "replace"),
            session_id=call.session_id,
            call_id=call.call_id,
            max_wall=wall,
        )
        return _result(await self._ask(self._stub().CallTool, request, timeout_s + GRACE_S))

    async def _ask(self, rpc: Callable[..., Awaitable[_Reply]], request: Any, timeout_s: float) -> _Reply:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if request_id := structlog.contextvars.get_contextvars().get("request_id"):
            carrier["x-request-id"] = request_id
        try:
            return await rpc(request, timeout=timeout_s, metadata=tuple(carrier.items()))
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    def _error(self, error: grpc.aio.AioRpcError) -> AgentFluxError:
        code, said = error.code(), error.details() or "no details"
        # Only the sandbox itself sends a google.rpc.Status; without one the connection speaks.
        from_sandbox = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
        if not from_sandbox and code is grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"the sandbox at {self._target} cannot be reached or went away: {said}")
        if not from_sandbox and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"the sandbox at {self._target} did not answer in time")
        kind = _ERRORS.get(code, UpstreamError)
        return kind(said if kind is not UpstreamError else f"the sandbox answered {code.name}: {said}")

    def _stub(self) -> pb_grpc.ToolRunnerServiceAsyncStub:
        return pb_grpc.ToolRunnerServiceStub(self._channel())

    def _channel(self) -> grpc.aio.Channel:
        # Opened at the first call and not before: a channel belongs to the event loop that runs then.
        if self._opened is None:
            self._opened = grpc.aio.insecure_channel(
                self._target,
                options=[
                    ("grpc.max_receive_message_length", _MAX_REPLY_BYTES),
                    # A sandbox that was restarted is found again within seconds, not minutes.
                    ("grpc.initial_reconnect_backoff_ms", 200),
                    ("grpc.max_reconnect_backoff_ms", 2000),
                ],
            )
        return self._opened


def _result(reply: pb.CallToolResponse) -> ToolResult:
    structured = json.loads(reply.structured_content_json) if reply.structured_content_json else None
    return ToolResult(
        outcome="tool_error" if reply.outcome == pb.OUTCOME_TOOL_ERROR else "ok",
        content=[_part(content) for content in reply.contents],
        # MCP allows any JSON here; what is no object is in the content too.
        structured=structured if isinstance(structured, dict) else None,
        truncated=reply.truncated,
        cold_start=reply.usage.cold_start,
        timings={
            "start_s": reply.usage.start.ToMicroseconds() / 1e6,
            "run_s": reply.usage.run.ToMicroseconds() / 1e6,
        },
    )


def _part(content: pb.Content) -> ContentPart:
    if content.WhichOneof("kind") == "text":
        return ContentPart(type="text", text=content.text)
    block: JsonObject = json.loads(content.block_json)
    return ContentPart(type=str(block.get("type", "unknown")), data=block)
