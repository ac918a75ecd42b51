"""Composes the argument service: settings, renderer, engine client, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.arguments.api import ArgumentsMetrics, router
from services.arguments.generation import Writer
from services.arguments.settings import ArgumentsSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.clients.engines import EngineFleet
from services.shared.clients.releases import following, warm_prompt, watch_releases
from services.shared.contracts.adapters import NoReleases
from services.shared.contracts.prompts import PromptRenderer


def create_app(settings: ArgumentsSettings) -> FastAPI:
    """The whole service; the model folder is read here, the engine is asked only when a request comes."""
    engine = EngineFleet.connect(
        settings.engine_url,
        timeout_s=settings.engine_timeout_s,
        role="arguments",
        base_model=settings.base_model,
        adapters=lambda: dict.fromkeys(watcher.adapters(), warm_prompt(renderer)) if watcher else {},
    )
    renderer = PromptRenderer.load(settings.model_dir)
    watcher = watch_releases(settings.adapter_store, engine, renderer, settings.model_dir)
    releases = watcher or NoReleases()
    writer = Writer(engine, renderer, releases, base_model=settings.base_model, max_tokens=settings.max_tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with following(watcher):
            yield
        await engine.aclose()

    app = FastAPI(title="AgentFlux arguments", lifespan=lifespan)
    required = {"engine": engine.ready} | ({"adapters": watcher.obstacle} if watcher else {})
    metrics = install_edge(app, settings, required=required)
    metrics.registry.register(engine.metrics)
    if watcher:
        watcher.metrics.register(metrics.registry)
    app.include_router(router(writer, ArgumentsMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.arguments`."""
    settings = ArgumentsSettings()
    serve(create_app(settings), settings, service="arguments")
