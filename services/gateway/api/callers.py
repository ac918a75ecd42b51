"""Who calls, checked before anything of the body is read: the bound on requests inside, the API key, its limits."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.keys import EVERYBODY, Caller, Keys
from services.gateway.limits import BYTES_PER_TOKEN, Limits
from services.gateway.metrics import GatewayMetrics
from services.shared.contracts.errors import AgentFluxError, Overloaded, Unauthorized
from services.shared.contracts.usage import Usage

# What the platform asks, not a client.
WITHOUT_KEY = {"/livez", "/readyz", "/metrics"}


@dataclass(frozen=True)
class Visit:
    """The caller of the request that is being served, since when it is (time.monotonic), and who counts what it uses."""

    caller: Caller
    limits: Limits | None = None
    metrics: GatewayMetrics | None = None
    estimated: int = 0
    since: float = field(default_factory=time.monotonic)

    def charge(self, usage: Usage) -> None:
        """Counts what a turn used, also one that failed or was left."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        if self.metrics is not None:
            self.metrics.caller_tokens.labels(self.metrics.caller(self.caller.name)).inc(tokens)
        if self.limits is not None:
            self.limits.charge(self.caller, tokens, estimated=self.estimated)


_visit: ContextVar[Visit | None] = ContextVar("visit", default=None)


def visit() -> Visit:
    """The visit of the request that is being served."""
    return _visit.get() or Visit(EVERYBODY)


class Callers:
    """ASGI middleware outside the edge. Puts the `Caller` into `scope["state"]["caller"]`, where doors find its `name`.

    A refusal takes the place of the body: the edge meets it when it begins to read, and replies as to every error, with request
    id, metrics and log. What the client still sends is thrown away as it arrives.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, limits: Limits, metrics: GatewayMetrics, max_requests: int) -> None:
        self.app = app
        self.keys = keys
        self.limits = limits
        self.metrics = metrics
        self.max_requests = max_requests
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Browsers send no key with a preflight; nothing is served under OPTIONS.
        if scope["type"] != "http" or scope["path"] in WITHOUT_KEY or scope["method"] == "OPTIONS":
            return await self.app(scope, receive, send)
        self._inside += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._inside -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        try:
            headers = await self._admit(scope)
        except AgentFluxError as error:
            refusal = error
            if isinstance(error, Unauthorized):
                headers = {"www-authenticate": "Bearer"}

            async def receive() -> Message:
                raise refusal

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self.app(scope, receive, tell if headers else send)

    async def _admit(self, scope: Scope) -> dict[str, str]:
        """Headers for the reply; raises whatever keeps the request out."""
        # Set anew for every request: on one connection they may run in one context.
        _visit.set(None)
        structlog.contextvars.unbind_contextvars("caller")
        if self._inside > self.max_requests:
            self.metrics.refused.labels("too_many_requests").inc()
            raise Overloaded(f"{self.max_requests} requests are being served (setting max_requests)", retry_after=1.0)
        given = Headers(scope=scope)
        try:
            caller = self.keys.caller(_key(given), datetime.now(UTC))
        except Unauthorized:
            self.metrics.refused.labels("invalid_api_key").inc()
            raise
        scope.setdefault("state", {})["caller"] = caller
        if not self.keys.is_open:
            structlog.contextvars.bind_contextvars(caller=caller.name)
        estimated = _length(given) // BYTES_PER_TOKEN
        _visit.set(Visit(caller, self.limits, self.metrics, estimated))
        # What costs something is asked for by POST; looking at models or stored responses is free.
        if scope["method"] != "POST":
            return {}
        try:
            headers = await self.limits.admit(caller, max(1, estimated))
        except AgentFluxError as error:
            self.metrics.caller_requests.labels(self.metrics.caller(caller.name), error.code).inc()
            raise
        self.metrics.caller_requests.labels(self.metrics.caller(caller.name), "admitted").inc()
        return headers


def _key(headers: Headers) -> str | None:
    """The key, as OpenAI's clients send it, else as Anthropic's do."""
    scheme, _, bearer = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return headers.get("x-api-key", "").strip() or None


def _length(headers: Headers) -> int:
    """Bytes of the body as announced; 0 where they are not, and what the turn uses then is counted at its end."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 12 else 0
