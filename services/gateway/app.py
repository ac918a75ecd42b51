"""Composes the gateway: settings, toolsets, clients of the other services, routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.gateway.api import chat, models
from services.gateway.api.turns import Turns
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.settings import GatewaySettings
from services.gateway.toolsets import read_catalogue
from services.shared.chassis.http import install_edge, serve
from services.shared.clients.arguments import ArgumentsClient
from services.shared.clients.callcache import CallCacheClient
from services.shared.clients.engines import EngineFleet
from services.shared.clients.http import HttpClient
from services.shared.clients.sandbox import SandboxClient
from services.shared.clients.selector import SelectorClient


def create_app(settings: GatewaySettings) -> FastAPI:
    """The whole service; other services are contacted only when a request comes."""
    catalogue = read_catalogue(settings.base_model, settings.toolsets_dir)
    engine = EngineFleet.connect(
        settings.engine_url,
        timeout_s=settings.answer_timeout_s,
        role="answers",
        base_model=settings.base_model,
    )
    selector = SelectorClient(HttpClient(settings.selector_url, service="selector", timeout_s=settings.stage_timeout_s))
    arguments = ArgumentsClient(HttpClient(settings.arguments_url, service="arguments", timeout_s=settings.stage_timeout_s))
    memory = CallCacheClient(settings.callcache_url, timeout_s=settings.callcache_timeout_s)
    sandbox = SandboxClient(settings.sandbox_target)
    look_ahead = LookAhead(arguments, adapters=settings.look_ahead)
    closing = (look_ahead, engine, selector, arguments, memory, sandbox)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for part in closing:
            await part.aclose()

    # Plain `curl -d` sends no JSON content type; there is only one type a body can have here.
    app = FastAPI(title="AgentFlux", lifespan=lifespan, strict_content_type=False)
    edge = install_edge(
        app,
        settings,
        required={"engine": engine.ready, "selector": selector.ready, "arguments": arguments.ready},
        optional={"callcache": memory.ready, "sandbox": sandbox.ready},
    )
    edge.registry.register(engine.metrics)
    pipeline = Pipeline(engine, selector, arguments, memory, catalogue, settings.ladder, look_ahead)
    turns = Turns(pipeline, GatewayMetrics(edge.registry), settings.request_timeout_s, settings.keepalive_s)
    app.include_router(chat.router(turns, catalogue))
    app.include_router(models.router(catalogue, created=int(time.time())))
    return app


def main() -> None:
    """Entry point of `python -m services.gateway`."""
    settings = GatewaySettings()
    serve(create_app(settings), settings, service="gateway")
