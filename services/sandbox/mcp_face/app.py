"""Builds the MCP face: the door of api.py behind the edge of every HTTP service, and who may come to it."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from services.sandbox.mcp_face.api import McpDoor
from services.sandbox.mcp_face.tokens import Tokens
from services.sandbox.runner import Runner
from services.sandbox.settings import SandboxSettings
from services.shared.chassis.http import KEEP_ALIVE_S, install_edge
from services.shared.contracts.errors import Unavailable

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# Of the older era, which has sessions; each takes a few tasks, and ends after the sandbox's own idle time.
MAX_SESSIONS = 256


def create_face(runner: Runner, settings: SandboxSettings) -> FastAPI:
    """The MCP server as an ASGI application; it needs its lifespan.

    Raises:
        Unavailable: the token file cannot be used, or beyond loopback there is none.
    """
    manager = StreamableHTTPSessionManager(
        McpDoor(runner).server,
        security_settings=_who_is_meant(settings),
        session_idle_timeout=settings.idle_s,
        max_sessions=MAX_SESSIONS,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with manager.run():
            yield

    endpoint: ASGIApp = StreamableHTTPASGIApp(manager)
    middleware = []
    if settings.mcp_tokens_file is not None:
        endpoint = RequireAuthMiddleware(endpoint, [])
        middleware = [
            Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(_Verifier(Tokens(settings.mcp_tokens_file))))
        ]
    elif not is_loopback(settings.host):
        raise Unavailable(
            f"the MCP face does not listen on {settings.host} without tokens: set AGENTFLUX_SANDBOX_MCP_TOKENS_FILE to a file "
            "with lines of `<tenant> <token>`, or AGENTFLUX_SANDBOX_MCP_PORT to 0"
        )
    app = FastAPI(openapi_url=None, lifespan=lifespan, middleware=middleware)
    app.router.routes += [Route("/mcp", endpoint), Route("/mcp/{toolset}", endpoint)]

    async def probe() -> str | None:
        return runner.capabilities.problem or None

    install_edge(app, settings, required={"sandbox": probe})
    return app


@asynccontextmanager
async def serving(app: FastAPI, settings: SandboxSettings, port: int) -> AsyncGenerator[int, None]:
    """Serves `app` in this event loop; gives the port, also where 0 left it to the system. At the end requests in flight have
    `drain_timeout_s`.

    Raises:
        Unavailable: the address cannot be bound.
    """
    try:
        listener = socket.create_server((settings.host, port))
    except OSError as error:
        raise Unavailable(f"cannot listen on {settings.host}:{port} for HTTP: {error.strerror}") from None
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, math.ceil(settings.drain_timeout_s)),
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        app.state.drain.has_begun = True
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The sandbox's own handler ends this server together with gRPC's."""
        yield


class _Verifier:
    """The file of tokens as the SDK asks for it."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def verify_token(self, token: str) -> AccessToken | None:
        tenant = self._tokens.tenant(token)
        return None if tenant is None else AccessToken(token=token, client_id=tenant, scopes=[])


def _who_is_meant(settings: SandboxSettings) -> TransportSecuritySettings:
    """Host and Origin that are accepted: a web page that made its own name point here (DNS rebinding) has another one."""
    names = [*LOOPBACK, *settings.mcp_hosts]
    hosts = [spelled for name in names for spelled in (name, f"{name}:*")]
    return TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")
