"""Composes the argument service: settings, renderer, engine client, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.arguments.api import ArgumentsMetrics, router
from services.arguments.generation import Writer
from services.arguments.settings import ArgumentsSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.clients.engine import EngineClient
from services.shared.contracts.prompts import PromptRenderer


def create_app(settings: ArgumentsSettings) -> FastAPI:
    """The whole service; the model folder is read here, the engine is asked only when a request comes."""
    engine = EngineClient.connect(settings.engine_url, timeout_s=settings.engine_timeout_s)
    renderer = PromptRenderer.load(settings.model_dir)
    writer = Writer(engine, renderer, model=settings.base_model, max_tokens=settings.max_tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.aclose()

    app = FastAPI(title="AgentFlux arguments", lifespan=lifespan)
    metrics = install_edge(app, settings, required={"engine": engine.ready})
    app.include_router(router(writer, ArgumentsMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.arguments`."""
    settings = ArgumentsSettings()
    serve(create_app(settings), settings, service="arguments")
