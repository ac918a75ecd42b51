"""The gRPC edge: errors as google.rpc.Status, health, reflection, request ids and traces from metadata, bounded messages."""

from __future__ import annotations

import asyncio
import logging
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import propagate, trace

from services.shared.chassis.telemetry import describe, tracer
from services.shared.chassis.tls import TlsFiles, server_credentials
from services.shared.contracts import semconv
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded, InvalidRequest, NotFound, Unavailable

log = structlog.get_logger()

# At debug level gRPC's destructor of a server that never started logs the dying server itself. Whoever keeps that record
# (pytest, an error reporter) frees its memory a second time later, when it is somebody else's.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.INFO)

# Room beside the payload for names, timings and details of errors.
HEADROOM_BYTES = 64 * 1024


@dataclass(frozen=True)
class RpcStatus:
    """An error as it goes over the wire; `reason` is stable, `violations` are pairs of a field and what is wrong there."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    retry_after_s: float | None = None


Explain = Callable[[AgentFluxError], RpcStatus]
"""How a service's own errors look on the wire."""


def explain(error: AgentFluxError) -> RpcStatus:
    """The status of an error that every service knows."""
    codes = {
        NotFound: grpc.StatusCode.NOT_FOUND,
        InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    return RpcStatus(code, error.code.upper(), error.message, retry_after_s=error.retry_after)


class Edge(grpc.aio.ServerInterceptor):
    """Around each unary call: request id, span, and errors that name a reason. Nothing else of ours reaches the client."""

    def __init__(self, *, domain: str, explain: Explain = explain) -> None:
        self._domain = domain
        self._explain = explain

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of one call; streams (health watching, reflection) go by."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        serve, parse, method = handler.unary_unary, handler.request_deserializer, str(handler_call_details.method)
        pairs = handler_call_details.invocation_metadata or ()
        metadata = {str(key): value for key, value in pairs if isinstance(value, str)}

        async def wrapped(raw: bytes, context: Any) -> Any:
            request_id = metadata.get("x-request-id", "")[:128] or uuid.uuid4().hex
            structlog.contextvars.bind_contextvars(request_id=request_id)
            parent = propagate.extract(metadata)
            with tracer.start_as_current_span(method.lstrip("/"), context=parent, kind=trace.SpanKind.SERVER):
                try:
                    return await serve(_parsed(raw, parse), context)
                except AgentFluxError as error:
                    status = self._explain(error)
                    log.warning("call failed", method=method, code=status.code.name, reason=status.reason, error=status.message)
                except Exception:
                    log.exception("unhandled error", method=method)
                    message = f"internal error; the logs have it under request id {request_id}"
                    status = RpcStatus(grpc.StatusCode.INTERNAL, "INTERNAL", message)
                describe({semconv.ERROR_TYPE: status.reason})
                await context.abort_with_status(rpc_status.to_status(to_proto(status, domain=self._domain)))

        # Parsed here and not by gRPC, which answers bytes that are no message with UNKNOWN and a line of Python.
        return grpc.unary_unary_rpc_method_handler(wrapped, response_serializer=handler.response_serializer)


def _parsed(raw: bytes, parse: Callable[[bytes], Any] | None) -> Any:
    try:
        return parse(raw) if parse else raw
    except DecodeError as error:
        raise InvalidRequest(f"the request's {len(raw)} bytes are not the message that this method takes: {error}") from None


def to_proto(status: RpcStatus, *, domain: str) -> status_pb2.Status:
    """The google.rpc.Status with its ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=status.reason, domain=domain, metadata=status.metadata)]
    if status.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=said) for field, said in status.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if status.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(status.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(status.code.name), message=status.message, details=packed)


class GrpcServer:
    """One server for one service, with `grpc.health.v1` and reflection. It starts as NOT_SERVING."""

    def __init__(
        self,
        *,
        service: str,
        interceptor: Edge,
        address: str,
        max_request_bytes: int,
        max_reply_bytes: int,
        tls: TlsFiles | None = None,
    ) -> None:
        self._service = service
        self._address = address
        self._tls = tls
        self.port = 0
        self.server = grpc.aio.server(
            interceptors=(interceptor,),
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", max_reply_bytes + HEADROOM_BYTES),
                # Two servers on one port would share its connections without a word.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server)

    async def start(self) -> None:
        """Binds the address, such as 127.0.0.1:8034 or unix:/run/x.sock, and answers from here on.

        Raises:
            Unavailable: the address cannot be bound, or the certificate cannot be used.
        """
        await self.set_serving(False)
        credentials = server_credentials(self._tls) if self._tls else None
        try:
            self.port = (
                self.server.add_secure_port(self._address, credentials)
                if credentials
                else self.server.add_insecure_port(self._address)
            )
        except RuntimeError:
            raise Unavailable(
                f"cannot listen on {self._address}: the port is taken or the address is not of this machine"
            ) from None
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """What health checks hear, for this service and for the server as a whole."""
        for name in ("", self._service):
            await self.set_part(name, serving)

    async def set_part(self, name: str, serving: bool) -> None:
        """What health checks hear that ask for `name`, a part of the service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING to whoever balances load, then lets calls in flight finish for `grace_s` seconds."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


async def until_terminated() -> None:
    """Returns at SIGTERM or SIGINT."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asked.wait()
