"""The sandbox from afar: `ToolRunner` over gRPC, always with a deadline, errors as those of contracts/errors.py."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import propagate

from services.shared.chassis.tls import TlsFiles, channel_credentials, validity_of
from services.shared.contracts.errors import (
    AgentFluxError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Unavailable,
    UpstreamError,
)
from services.shared.contracts.execution import ContentPart, RegisteredFunction, ToolCallSpec, ToolResult, ToolsetInfo
from services.shared.contracts.tools import JsonObject, Tool
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["ToolRunnerService"].full_name

# Nothing is started for a list; it is there at once or something is wrong.
LIST_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 1.0
# The sandbox keeps to `timeout_s` by itself and explains; our own clock is for when it is gone.
GRACE_S = 1.0
# What a call may still take on a connection whose certificate was replaced.
OLD_CHANNEL_S = 300.0

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
    """A `ToolRunner` at `target`, such as 127.0.0.1:8034. Cancelling a call ends its server's process tree.

    Calls are those of `tenant`; an empty one is the sandbox's default tenant. With `tls` the connection is encrypted, and the
    tenant is whom our certificate names, if the sandbox asks for one; changed files count from the next call on.
    """

    def __init__(self, target: str, *, tenant: str = "", tls: TlsFiles | None = None) -> None:
        self._target = target
        self._tenant = tenant
        self._tls = tls
        self._stamp: tuple[int, ...] = ()
        self._opened: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def ready(self) -> str | None:
        """None when tools can be run and will be after the next connection, else one sentence that says why not."""
        if self._tls and (wrong := self._tls.complaint()):
            return wrong
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            reply = await self._ask(health_pb2_grpc.HealthStub(self._channel()).Check, request, READY_TIMEOUT_S)
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return None
            found = await self._ask(self._stub().GetCapabilities, pb.GetCapabilitiesRequest(), READY_TIMEOUT_S)
            return found.problem or f"the sandbox at {self._target} is not serving: it is starting or stopping"
        except Unavailable as error:
            theirs = await asyncio.to_thread(self._their_certificate) if self._tls else None
            return f"{error.message}; {theirs}" if theirs else error.message
        except AgentFluxError as error:
            return error.message

    def _their_certificate(self) -> str | None:
        """What is wrong with the time of the sandbox's certificate. gRPC says no more than that it has expired."""
        host, _, port = self._target.rpartition(":")
        try:
            shown = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=READY_TIMEOUT_S)
            return validity_of(shown.encode(), f"of {self._target}").complaint()
        except (OSError, ValueError):
            return None

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

    async def register_function(self, *, name: str, description: str, parameters: JsonObject, source: str) -> RegisteredFunction:
        """Keeps a function for the own tenant; its `advice` says what will probably not work.

        Raises:
            InvalidRequest: it can never work, or this sandbox keeps no functions; says which field is wrong.
            Unavailable: there are too many.
        """
        request = pb.RegisterFunctionRequest(
            name=name, description=description, parameters_json=json.dumps(parameters).encode(), source=source
        )
        reply = await self._ask(self._stub().RegisterFunction, request, LIST_TIMEOUT_S)
        return _function(reply.function).model_copy(update={"advice": list(reply.advice)})

    async def list_functions(self) -> list[RegisteredFunction]:
        """What the own tenant registered, and what was approved for everybody."""
        reply = await self._ask(self._stub().ListFunctions, pb.ListFunctionsRequest(), LIST_TIMEOUT_S)
        return [_function(function) for function in reply.functions]

    async def get_function(self, toolset: str) -> RegisteredFunction:
        """One function with its source.

        Raises:
            NotFound: there is none of that name that the own tenant may see.
        """
        reply = await self._ask(self._stub().GetFunction, pb.GetFunctionRequest(toolset=toolset), LIST_TIMEOUT_S)
        return _function(reply.function).model_copy(update={"source": reply.source})

    async def _ask(self, rpc: Callable[..., Awaitable[_Reply]], request: Any, timeout_s: float) -> _Reply:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if request_id := structlog.contextvars.get_contextvars().get("request_id"):
            carrier["x-request-id"] = request_id
        if self._tenant:
            carrier["agentflux-tenant"] = self._tenant
        try:
            return await rpc(request, timeout=timeout_s, metadata=tuple(carrier.items()))
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    def _error(self, error: grpc.aio.AioRpcError) -> AgentFluxError:
        code, said = error.code(), error.details() or "no details"
        # Only the sandbox itself sends a google.rpc.Status; without one the connection speaks.
        from_sandbox = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
        if not from_sandbox and code is grpc.StatusCode.UNAVAILABLE:
            # A server that refuses our certificate hangs up without a word.
            ours = self._tls.complaint() if self._tls else None
            said = f"{said}; {ours}" if ours else said
            return Unavailable(f"the sandbox at {self._target} cannot be reached or went away: {said}")
        if not from_sandbox and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"the sandbox at {self._target} did not answer in time")
        kind = _ERRORS.get(code, UpstreamError)
        return kind(said if kind is not UpstreamError else f"the sandbox answered {code.name}: {said}")

    def _stub(self) -> pb_grpc.ToolRunnerServiceAsyncStub:
        return pb_grpc.ToolRunnerServiceStub(self._channel())

    def _channel(self) -> grpc.aio.Channel:
        # Opened at the first call and not before: a channel belongs to the event loop that runs then.
        stamp = self._tls.stamp() if self._tls else ()
        if self._opened is not None and stamp != self._stamp:
            # Its calls in flight may finish.
            closing = asyncio.create_task(self._opened.close(OLD_CHANNEL_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._opened = None
        if self._opened is None:
            self._opened = self._open()
            self._stamp = stamp
        return self._opened

    def _open(self) -> grpc.aio.Channel:
        options = [
            ("grpc.max_receive_message_length", _MAX_REPLY_BYTES),
            # A sandbox that was restarted is found again within seconds, not minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        return grpc.aio.secure_channel(self._target, channel_credentials(self._tls), options=options)


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


def _function(function: pb.Function) -> RegisteredFunction:
    return RegisteredFunction(
        name=function.name,
        description=function.description,
        parameters=json.loads(function.parameters_json),
        toolset=function.toolset,
        digest=function.digest,
        version=function.version,
        approved=function.approved,
        callable=function.callable,
    )


def _part(content: pb.Content) -> ContentPart:
    if content.WhichOneof("kind") == "text":
        return ContentPart(type="text", text=content.text)
    block: JsonObject = json.loads(content.block_json)
    return ContentPart(type=str(block.get("type", "unknown")), data=block)
