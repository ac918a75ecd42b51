"""Composes the selector: settings, renderer, engine client, routes."""

from __future__ import annotations

from fastapi import FastAPI

from services.selector.api import SelectionMetrics, router
from services.selector.selecting import Sampling, Selector
from services.selector.settings import SelectorSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import load
from services.shared.clients.engine import MAX_SCORED_TOKENS
from services.shared.clients.served import ServedEngines


def create_app(settings: SelectorSettings) -> FastAPI:
    """The whole service."""
    served = ServedEngines(settings, role="selector")
    selector = Selector(
        served.engine,
        served.renderer,
        served.releases,
        base_model=settings.base_model,
        strategy=settings.strategy,
        sampling=Sampling(settings.samples, settings.first_wave),
        max_scored_tokens=MAX_SCORED_TOKENS,
        answer_threshold=settings.answer_threshold,
    )
    app = FastAPI(title="AgentFlux selector", lifespan=served.lifespan)
    metrics = install_edge(app, settings, required=served.required)
    served.register(metrics.registry)
    app.include_router(router(selector, SelectionMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.selector`."""
    settings = load(SelectorSettings)
    serve(create_app(settings), settings, service="selector")
