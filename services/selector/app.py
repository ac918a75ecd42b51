"""Composes the selector: settings, renderer, engine client, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.selector.api import SelectionMetrics, router
from services.selector.selecting import PRIORITY, Sampling, Selector
from services.selector.settings import SelectorSettings
from services.selector.shadow import Candidate, Shadow
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import load
from services.shared.clients.engine import MAX_SCORED_TOKENS
from services.shared.clients.served import ServedEngines
from services.shared.contracts.adapters import Releases
from services.shared.contracts.engine import BACKGROUND_PRIORITY
from services.shared.contracts.errors import AgentFluxError, Unavailable


def create_app(settings: SelectorSettings) -> FastAPI:
    """The whole service."""
    served = ServedEngines(settings, role="selector")
    selector = _selector(settings, served, served.releases)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with served.lifespan(_):
            yield
            if shadow is not None:
                await shadow.aclose()

    app = FastAPI(title="AgentFlux selector", lifespan=lifespan)
    edge = install_edge(app, settings, required=served.required)
    served.register(edge.registry)
    metrics = SelectionMetrics(edge.registry)
    shadow = _shadow(settings, served, metrics)
    app.include_router(router(selector, metrics, shadow))
    return app


def _selector(settings: SelectorSettings, served: ServedEngines, releases: Releases, *, priority: int = PRIORITY) -> Selector:
    return Selector(
        served.engine,
        served.renderer,
        releases,
        base_model=settings.base_model,
        strategy=settings.strategy,
        sampling=Sampling(settings.samples, settings.first_wave),
        max_scored_tokens=MAX_SCORED_TOKENS,
        answer_threshold=settings.answer_threshold,
        priority=priority,
    )


def _shadow(settings: SelectorSettings, served: ServedEngines, metrics: SelectionMetrics) -> Shadow | None:
    if (adapter := settings.shadow_adapter) is None:
        return None
    try:
        release = served.candidate(adapter)
    except AgentFluxError as error:
        raise Unavailable(f"shadow_adapter: {error.message}") from None
    return Shadow(
        _selector(settings, served, Candidate(release), priority=BACKGROUND_PRIORITY),
        toolset=release.toolset,
        adapter=adapter,
        share=settings.shadow_share,
        count=lambda outcome: metrics.shadow.labels(adapter, outcome).inc(),
    )


def main() -> None:
    """Entry point of `python -m services.selector`."""
    serve(create_app, load(SelectorSettings), service="selector")
