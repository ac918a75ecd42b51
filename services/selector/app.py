"""Composes the selector: settings, renderer, engine client, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.selector.api import SelectionMetrics, router
from services.selector.selecting import Sampling, Selector
from services.selector.settings import SelectorSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.clients.engine import MAX_SCORED_TOKENS, EngineClient
from services.shared.contracts.prompts import PromptRenderer


def create_app(settings: SelectorSettings) -> FastAPI:
    """The whole service; the model folder is read here, the engine is asked only when a request comes."""
    engine = EngineClient.connect(settings.engine_url, timeout_s=settings.engine_timeout_s)
    selector = Selector(
        engine,
        PromptRenderer.load(settings.model_dir),
        model=settings.base_model,
        strategy=settings.strategy,
        sampling=Sampling(settings.samples, settings.first_wave),
        max_scored_tokens=MAX_SCORED_TOKENS,
        answer_threshold=settings.answer_threshold,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.aclose()

    app = FastAPI(title="AgentFlux selector", lifespan=lifespan)
    metrics = install_edge(app, settings, required={"engine": engine.ready})
    app.include_router(router(selector, SelectionMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.selector`."""
    settings = SelectorSettings()
    serve(create_app(settings), settings, service="selector")
