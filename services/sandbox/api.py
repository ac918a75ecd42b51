"""The gRPC door: parse, ask the runner, serialise. The wire is proto/toolrunner/v1."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace

from services.sandbox import errors
from services.sandbox.functions.function import checked
from services.sandbox.functions.store import FunctionStore, Registered
from services.sandbox.limits import Block
from services.sandbox.runner import Call, Result, Runner
from services.sandbox.tenants import TENANT_NAME, tenant_of_certificate
from services.shared.chassis.grpc import RpcStatus
from services.shared.chassis.grpc import explain as explain_shared
from services.shared.chassis.telemetry import describe
from services.shared.contracts import semconv
from services.shared.contracts.errors import AgentFluxError, InvalidRequest
from services.shared.contracts.tools import canonical_json
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

DOMAIN = "toolrunner"
SERVICE = pb.DESCRIPTOR.services_by_name["ToolRunnerService"].full_name

TENANT = "agentflux-tenant"
MAX_SESSION_ID = 256

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
    errors.CrashLoop: grpc.StatusCode.UNAVAILABLE,
    errors.ServerMisbehaved: grpc.StatusCode.UNAVAILABLE,
    errors.SandboxUnusable: grpc.StatusCode.UNAVAILABLE,
    errors.LogUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.TooManyFunctions: grpc.StatusCode.RESOURCE_EXHAUSTED,
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

    def __init__(self, runner: Runner, functions: FunctionStore | None = None) -> None:
        self._runner = runner
        self._functions = functions

    async def ListToolsets(self, request: pb.ListToolsetsRequest, context: Any) -> pb.ListToolsetsResponse:
        """The registered toolsets."""
        return pb.ListToolsetsResponse(
            toolsets=[
                pb.Toolset(name=info.name, description=info.description, ready=info.ready, reason=info.reason)
                for info in self._runner.list_toolsets(_tenant(context))
            ]
        )

    async def ListTools(self, request: pb.ListToolsRequest, context: Any) -> pb.ListToolsResponse:
        """The pinned tools of one toolset."""
        tools = self._runner.list_tools(request.toolset, _tenant(context))
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
                session_id=_session(request.session_id),
                tenant=_tenant(context),
                call_id=request.call_id,
                max_output_bytes=request.max_output_bytes,
                asked_s=asked,
                remaining_s=context.time_remaining(),
            )
        )
        _trace(request, result)
        # Called a thousand times a second, only failures are news; metrics and the trajectory log have the rest.
        (log.info if result.is_error else log.debug)(
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

    async def RegisterFunction(self, request: pb.RegisterFunctionRequest, context: Any) -> pb.RegisterFunctionResponse:
        """Keeps a function of the caller's tenant."""
        store, tenant = self._kept(), _tenant(context)
        function, advice = await asyncio.to_thread(
            checked, request.name, request.description, request.parameters_json, request.source
        )
        registered = await asyncio.to_thread(store.register, function, tenant)
        log.info("function registered", tenant=tenant, toolset=function.toolset, digest=function.digest)
        return pb.RegisterFunctionResponse(function=self._function(registered, tenant), advice=advice)

    async def ListFunctions(self, request: pb.ListFunctionsRequest, context: Any) -> pb.ListFunctionsResponse:
        """What the caller's tenant may see."""
        store, tenant = self._kept(), _tenant(context)
        found = await asyncio.to_thread(store.seen_by, tenant)
        return pb.ListFunctionsResponse(functions=[self._function(each, tenant) for each in found])

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Any) -> pb.GetFunctionResponse:
        """One function, whole."""
        tenant = _tenant(context)
        found = self._kept().get(request.toolset, tenant)
        return pb.GetFunctionResponse(function=self._function(found, tenant), source=found.function.source)

    def _kept(self) -> FunctionStore:
        if self._functions is None:
            raise errors.ToolsetNotReady(
                "this sandbox keeps no functions: its operator has to set AGENTFLUX_SANDBOX_FUNCTIONS_DIR to a directory"
            )
        return self._functions

    def _function(self, registered: Registered, tenant: str) -> pb.Function:
        function = registered.function
        return pb.Function(
            name=function.name,
            description=function.description,
            parameters_json=canonical_json(function.parameters).encode(),
            toolset=function.toolset,
            digest=function.digest,
            version=registered.versions.get(tenant, 0),
            approved=bool(registered.approved),
            callable=registered.visible_to(tenant, own_at_once=self._kept().own_at_once),
        )


def _trace(request: pb.CallToolRequest, result: Result) -> None:
    trace.get_current_span().update_name(semconv.span_name(semconv.EXECUTE_TOOL, request.tool))
    describe(
        {
            semconv.OPERATION: semconv.EXECUTE_TOOL,
            semconv.TOOL_NAME: request.tool,
            semconv.TOOL_CALL_ID: request.call_id or None,
            semconv.TOOLSET: request.toolset,
            semconv.COLD_START: result.cold_start,
            semconv.ERROR_TYPE: semconv.TOOL_ERROR if result.is_error else None,
        }
    )


def _tenant(context: Any) -> str:
    """Who calls: whom the client's certificate names, else, where nobody has to show one, who the metadata says."""
    certified = tenant_of_certificate(context.auth_context())
    if certified is not None:
        if not TENANT_NAME.fullmatch(certified):
            raise InvalidRequest(
                f"the client certificate is for {certified[:80]!r}, which cannot be a tenant: its first subject alternative "
                "name, or its common name, must be 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit"
            )
        return certified
    said = [value for key, value in context.invocation_metadata() or () if key == TENANT]
    if not said:
        return Call.tenant
    if len(said) > 1 or not isinstance(said[0], str) or not TENANT_NAME.fullmatch(said[0]):
        shown = ", ".join(repr(value)[:80] for value in said[:2])
        raise InvalidRequest(
            f"the metadata {TENANT} must be there once, with 1 to 64 letters, digits, '.', '_' or '-', first a letter or "
            f"digit; it is {shown}"
        )
    return said[0]


def _session(said: str) -> str:
    if len(said) > MAX_SESSION_ID:
        raise InvalidRequest(f"session_id has {len(said)} characters, and at most {MAX_SESSION_ID} are possible")
    return said


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
