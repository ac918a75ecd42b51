"""The gRPC door: parse, ask the runner, serialise. The wire is proto/toolrunner/v1."""

from __future__ import annotations

from typing import Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration

from services.sandbox import errors
from services.sandbox.limits import Block
from services.sandbox.runner import Call, Result, Runner
from services.shared.chassis.grpc import RpcStatus
from services.shared.chassis.grpc import explain as explain_shared
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.tools import canonical_json
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

DOMAIN = "toolrunner"
SERVICE = pb.DESCRIPTOR.services_by_name["ToolRunnerService"].full_name

log = structlog.get_logger()

_CODES: dict[type[errors.SandboxError], grpc.StatusCode] = {
    errors.UnknownToolset: grpc.StatusCode.NOT_FOUND,
    errors.UnknownTool: grpc.StatusCode.NOT_FOUND,
    errors.ArgumentsRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ToolsetNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ToolsDiffer: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutputTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SandboxBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CallTimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ServerDied: grpc.StatusCode.UNAVAILABLE,
    errors.ServerMisbehaved: grpc.StatusCode.UNAVAILABLE,
    errors.SandboxUnusable: grpc.StatusCode.UNAVAILABLE,
}


def explain(error: AgentFluxError) -> RpcStatus:
    """The status of a sandbox error."""
    if not isinstance(error, errors.SandboxError):
        return explain_shared(error)
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    violations = error.violations if isinstance(error, errors.ArgumentsRejected) else ()
    return RpcStatus(code, error.reason, error.message, violations=violations, retry_after_s=error.retry_after)


class ToolRunnerDoor(pb_grpc.ToolRunnerServiceServicer):
    """`toolrunner.v1.ToolRunnerService` in front of a `Runner`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def ListToolsets(self, request: pb.ListToolsetsRequest, context: Any) -> pb.ListToolsetsResponse:
        """The registered toolsets."""
        return pb.ListToolsetsResponse(
            toolsets=[
                pb.Toolset(name=info.name, description=info.description, ready=info.ready, reason=info.reason)
                for info in self._runner.list_toolsets()
            ]
        )

    async def ListTools(self, request: pb.ListToolsRequest, context: Any) -> pb.ListToolsResponse:
        """The pinned tools of one toolset."""
        tools = self._runner.list_tools(request.toolset)
        return pb.ListToolsResponse(
            tools=[
                pb.Tool(name=tool.name, description=tool.description, parameters_json=canonical_json(tool.parameters).encode())
                for tool in tools
            ]
        )

    async def CallTool(self, request: pb.CallToolRequest, context: Any) -> pb.CallToolResponse:
        """Runs one tool; cancelling the RPC cancels this, and with it the server."""
        asked = request.max_wall.ToMilliseconds() / 1000 if request.HasField("max_wall") else None
        result = await self._runner.call(
            Call(
                toolset=request.toolset,
                tool=request.tool,
                arguments=request.arguments_json,
                session_id=request.session_id,
                max_output_bytes=request.max_output_bytes,
                asked_s=asked,
                remaining_s=context.time_remaining(),
            )
        )
        log.info(
            "tool called",
            toolset=request.toolset, tool=request.tool, call_id=request.call_id, is_error=result.is_error,
            run_ms=round(result.run_s * 1000, 1), cold_start=result.cold_start, output_bytes=result.output_bytes,
        )  # fmt: skip
        return _response(result)

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Any) -> pb.GetCapabilitiesResponse:
        """What the last probe found."""
        found = self._runner.capabilities
        return pb.GetCapabilitiesResponse(
            driver=found.driver, enforced=found.enforced, not_enforced=found.not_enforced, problem=found.problem
        )


def _response(result: Result) -> pb.CallToolResponse:
    usage = pb.Usage(
        start=_duration(result.start_s),
        run=_duration(result.run_s),
        output_bytes=result.output_bytes,
        cold_start=result.cold_start,
    )
    return pb.CallToolResponse(
        outcome=pb.OUTCOME_TOOL_ERROR if result.is_error else pb.OUTCOME_OK,
        contents=[_content(block) for block in result.blocks],
        structured_content_json=result.structured,
        truncated=result.truncated,
        usage=usage,
    )


def _content(block: Block) -> pb.Content:
    return pb.Content(block_json=block.json) if block.text is None else pb.Content(text=block.text)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(int(seconds * 1_000_000))
    return duration
