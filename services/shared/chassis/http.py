"""The HTTP edge that every service wears: error objects, health, metrics, request ids, bounded bodies, cancellation."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import propagate, trace
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared.chassis.collector import collect_seldom
from services.shared.chassis.compression import unpacked
from services.shared.chassis.drain import Drain, DrainingServer
from services.shared.chassis.logging import configure_logging
from services.shared.chassis.settings import ServiceSettings
from services.shared.chassis.telemetry import HttpMetrics, configure_tracing, describe, exemplar, tracer
from services.shared.contracts import semconv
from services.shared.contracts.errors import (
    AgentFluxError,
    DeadlineExceeded,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    Unavailable,
)

log = structlog.get_logger()

Settings = TypeVar("Settings", bound=ServiceSettings)

Check = Callable[[], Awaitable[str | None]]
"""A readiness check: None when the dependency is well, else one sentence that says what is wrong."""

# Longer than any dependency may take to say that it is well; /readyz itself has to answer quickly.
CHECK_TIMEOUT_S = 2.0

# Idle connections stay open longer than at the usual load balancers (60 s): the side that reuses a connection has to be the
# one that closes it, or a request meets a closing connection.
KEEP_ALIVE_S = 75

# The headers of a request that the edge reads.
READ = {name.encode(): name for name in ("x-request-id", "content-encoding", "traceparent", "tracestate")}

# What the platform asks while a service is leaving.
WITHOUT_DRAIN = {"/livez", "/readyz", "/metrics"}


def install_edge(
    app: FastAPI,
    settings: ServiceSettings,
    *,
    required: Mapping[str, Check] | None = None,
    optional: Mapping[str, Check] | None = None,
    details: Mapping[str, Callable[[], str]] | None = None,
) -> HttpMetrics:
    """Puts the edge around `app`: /livez, /readyz, /metrics, error objects and the `Edge` middleware."""
    metrics = HttpMetrics()
    drain = install_status(app, metrics.registry, required=required, optional=optional, details=details)
    app.add_middleware(Edge, settings=settings, metrics=metrics, drain=drain)
    app.add_exception_handler(AgentFluxError, _handle_error)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    app.add_exception_handler(HTTPException, _handle_http)
    return metrics


def install_status(
    app: FastAPI,
    registry: CollectorRegistry,
    *,
    required: Mapping[str, Check] | None = None,
    optional: Mapping[str, Check] | None = None,
    details: Mapping[str, Callable[[], str]] | None = None,
) -> Drain:
    """Gives `app` what the platform asks: /livez, /readyz, and /metrics with what is in `registry`.

    /readyz is 503 while a `required` dependency is unwell, and while the service is leaving, which it hears from the `Drain`; an
    `optional` one shows as degraded and stays 200. `details` are sentences that /readyz shows beside the checks.
    """
    drain = app.state.drain = Drain()

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        if drain.has_begun:
            return JSONResponse({"status": "draining", "checks": {}}, 503)
        wanted, spare = await asyncio.gather(_run_checks(required or {}), _run_checks(optional or {}))
        status = "unready" if any(wanted.values()) else "degraded" if any(spare.values()) else "ready"
        checks = {name: reason or "ok" for name, reason in {**wanted, **spare}.items()}
        told = {"details": {name: tell() for name, tell in details.items()}} if details else {}
        return JSONResponse({"status": status, "checks": checks, **told}, 503 if status == "unready" else 200)

    @app.get("/metrics", include_in_schema=False)
    async def metrics_page(request: Request) -> Response:
        # OpenMetrics where it is asked for: only that has exemplars.
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return page_of_metrics(request, encode(registry), content_type)

    return drain


def page_of_metrics(request: Request, page: bytes, content_type: str) -> Response:
    """A page of metrics, packed with gzip for whoever takes it so."""
    headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if gzip_accepted(request.headers.get("accept-encoding", "")):
        # The fastest level makes it a tenth or less, and the event loop waits for it.
        page, headers["content-encoding"] = gzip.compress(page, 1), "gzip"
    return Response(page, headers=headers)


async def _run_checks(checks: Mapping[str, Check]) -> dict[str, str | None]:
    async def run(check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return await check()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except AgentFluxError as error:
            return error.message
        except Exception as error:
            log.exception("readiness check failed")
            return f"the check itself failed: {type(error).__name__}: {error}"

    return dict(zip(checks, await asyncio.gather(*(run(check) for check in checks.values())), strict=True))


def error_response(error: AgentFluxError) -> Response:
    """The reply for an error: the OpenAI error object, with the headers that make client SDKs retry rightly."""
    headers = {"x-should-retry": "true" if error.retry_after is not None else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(int(error.retry_after * 1000))
    # A message may quote half a surrogate pair that a client sent as a JSON escape; UTF-8 has no such character.
    content = json.dumps(error.envelope(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, error.status, headers, media_type="application/json")


async def _handle_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AgentFluxError)
    _tell(error)
    return error_response(error)


def _tell(error: AgentFluxError) -> None:
    log.warning("request failed", code=error.code, status=error.status, error=error.message)
    describe({semconv.ERROR_TYPE: error.code})


async def _handle_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return await _handle_error(request, InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}"))
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return await _handle_error(request, InvalidRequest(f"{where or 'body'}: {first['msg']}", param=where or None))


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        response = await _handle_error(request, MethodNotAllowed(f"{request.method} is not possible on {path}"))
        response.headers.update(error.headers or {})
        return response
    if error.status_code == 404:
        return await _handle_error(request, NotFound(f"there is no {request.method} {path} here"))
    return await _handle_error(request, InvalidRequest(str(error.detail)))


class Edge:
    """ASGI middleware around one request: request id, span, bounded body, metrics, and the cancellation scope.

    When the client leaves, the handler is cancelled, and with it every request that it is awaiting.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings, metrics: HttpMetrics, drain: Drain) -> None:
        self.app = app
        self.drain = drain
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with self.metrics.loop_lag.measured():
                return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {READ[name]: value.decode("latin-1") for name, value in scope["headers"] if name in READ}
        exchange = _Exchange(send, _request_id(headers))
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        span = tracer.start_span(scope["path"], propagate.extract(headers), kind=trace.SpanKind.SERVER)
        with trace.use_span(span, end_on_exit=True):
            self.metrics.inflight.inc()
            try:
                await self._serve(scope, receive, exchange, headers.get("content-encoding"))
            finally:
                self.metrics.inflight.dec()
                # Only routes that exist become label values: a scanner must not create series.
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.duration.labels(route, exchange.status).observe(time.perf_counter() - exchange.started, exemplar())
                span.update_name(f"{scope['method']} {route}")
                describe(
                    {semconv.HTTP_ROUTE: route, semconv.HTTP_STATUS: int(exchange.status) if exchange.headers_sent else None}
                )
                if exchange.left_early:
                    self.metrics.cancelled.labels(route).inc()

    async def _serve(self, scope: Scope, receive: Receive, exchange: _Exchange, encodings: str | None) -> None:
        try:
            if self.drain.has_begun and scope["path"] not in WITHOUT_DRAIN:
                # The next try must not come here again over the same connection.
                exchange.hangs_up = True
                raise Unavailable("this replica is being shut down; another one will answer", retry_after=1.0)
            body = await self._read_body(receive, exchange)
            if body is None:
                exchange.left_early = True
                return
            if encodings:
                body = unpacked(body, encodings, self.settings.max_body_bytes)
            await self._run_until_disconnect(scope, receive, exchange, body)
        except AgentFluxError as error:
            _tell(error)
            await self._send_error(scope, receive, exchange, error)
        except RecursionError:
            # Nothing of ours recurses but along a client's JSON. A trace of a thousand frames would tell nothing, slowly.
            log.warning("nested too deep", path=scope["path"])
            await self._send_error(scope, receive, exchange, InvalidRequest("the body is nested too deep"))
        except Exception:
            log.exception("unhandled error", path=scope["path"])
            unexpected = AgentFluxError(f"internal error; the logs have it under request id {exchange.request_id}")
            await self._send_error(scope, receive, exchange, unexpected)

    async def _read_body(self, receive: Receive, exchange: _Exchange) -> bytes | None:
        """The whole body, or None when the client left before sending it."""
        limit = self.settings.max_body_bytes
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise RequestTooLarge(f"the body is larger than {limit} bytes (setting max_body_bytes)")
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            exchange.hangs_up = True
            raise DeadlineExceeded(f"the body did not arrive within {self.settings.body_timeout_s:g} s") from None

    async def _run_until_disconnect(self, scope: Scope, receive: Receive, exchange: _Exchange, body: bytes) -> None:
        unread = [body]
        gone = asyncio.Event()

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        with anyio.CancelScope() as handling:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                gone.set()
                # The server also reports a disconnect after a complete reply; what then still runs may finish.
                if not exchange.complete:
                    exchange.left_early = True
                    handling.cancel()

            # A task group would cost as much as all the other layers of the edge.
            watching = asyncio.create_task(watch())
            try:
                await self.app(scope, replay, exchange.send)
            finally:
                watching.cancel()

    async def _send_error(self, scope: Scope, receive: Receive, exchange: _Exchange, error: AgentFluxError) -> None:
        if not exchange.headers_sent:
            await error_response(error)(scope, receive, exchange.send)


def _request_id(headers: Mapping[str, str]) -> str:
    """The caller's id where it can travel on as a header, else a new one."""
    given = headers.get("x-request-id", "")[:128].strip()
    return given if given.isascii() and given.isprintable() and given else uuid.uuid4().hex


class _Exchange:
    """One request's reply, watched on its way out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.started = time.perf_counter()
        self.status = "none"
        self.headers_sent = False
        self.complete = False
        self.left_early = False
        # Whether the connection is closed after the reply: a body that came too slowly must not go on occupying it.
        self.hangs_up = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
            self.headers_sent = True
            took_ms = int((time.perf_counter() - self.started) * 1000)
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id.encode("latin-1")),
                (b"openai-processing-ms", str(took_ms).encode()),
                *([(b"connection", b"close")] if self.hangs_up else []),
            ]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self.complete = True
        await self._send(message)
        # The server drops what is sent to a client that left; without waiting anywhere, a fast reply would never end.
        if self.left_early:
            await anyio.lowlevel.checkpoint()


def serve(create_app: Callable[[Settings], FastAPI], settings: Settings, *, service: str) -> None:
    """Runs one service until SIGTERM, then lets requests in flight finish for `drain_timeout_s`.

    Where it cannot be made, the process ends with the sentence of that error.
    """
    try:
        app = create_app(settings)
    except AgentFluxError as error:
        raise SystemExit(f"{service}: {error.message}") from None
    configure_logging(service, settings.log_level)
    configure_tracing(service, settings.otlp_endpoint)
    collect_seldom()
    options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False}
    options["timeout_keep_alive"] = KEEP_ALIVE_S
    config = uvicorn.Config(app, host=settings.host, port=settings.port, **options)
    server = DrainingServer(config, app.state.drain, drain_timeout_s=settings.drain_timeout_s)
    server.run()
    if not server.started:
        sys.exit(1)
