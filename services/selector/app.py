"""Composes the selector: settings, renderer, engine client, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.selector.api import SelectionMetrics, router
from services.selector.selecting import Sampling, Selector
from services.selector.settings import SelectorSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.clients.engine import MAX_SCORED_TOKENS
from services.shared.clients.engines import EngineFleet
from services.shared.clients.releases import following, warm_prompt, watch_releases
from services.shared.contracts.adapters import NoReleases
from services.shared.contracts.prompts import PromptRenderer


def create_app(settings: SelectorSettings) -> FastAPI:
    """The whole service; the model folder is read here, the engine is asked only when a request comes."""
    engine = EngineFleet.connect(
        settings.engine_url,
        timeout_s=settings.engine_timeout_s,
        role="selector",
        base_model=settings.base_model,
        adapters=lambda: dict.fromkeys(watcher.adapters(), warm_prompt(renderer)) if watcher else {},
    )
    renderer = PromptRenderer.load(settings.model_dir)
    watcher = watch_releases(settings.adapter_store, engine, renderer, settings.model_dir)
    selector = Selector(
        engine,
        renderer,
        watcher or NoReleases(),
        base_model=settings.base_model,
        strategy=settings.strategy,
        sampling=Sampling(settings.samples, settings.first_wave),
        max_scored_tokens=MAX_SCORED_TOKENS,
        answer_threshold=settings.answer_threshold,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with following(watcher):
            yield
        await engine.aclose()

    app = FastAPI(title="AgentFlux selector", lifespan=lifespan)
    required = {"engine": engine.ready} | ({"adapters": watcher.obstacle} if watcher else {})
    metrics = install_edge(app, settings, required=required)
    metrics.registry.register(engine.metrics)
    if watcher:
        watcher.metrics.register(metrics.registry)
    app.include_router(router(selector, SelectionMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.selector`."""
    settings = SelectorSettings()
    serve(create_app(settings), settings, service="selector")
