"""Composes the argument service: settings, renderer, engine client, routes."""

from __future__ import annotations

from fastapi import FastAPI

from services.arguments.api import ArgumentsMetrics, router
from services.arguments.generation import Writer
from services.arguments.settings import ArgumentsSettings
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import load
from services.shared.clients.served import ServedEngines


def create_app(settings: ArgumentsSettings) -> FastAPI:
    """The whole service."""
    served = ServedEngines(settings, role="arguments")
    writer = Writer(
        served.engine,
        served.renderer,
        served.releases,
        base_model=settings.base_model,
        max_tokens=settings.max_tokens,
        grounding=settings.grounding,
    )
    app = FastAPI(title="AgentFlux arguments", lifespan=served.lifespan)
    metrics = install_edge(app, settings, required=served.required)
    served.register(metrics.registry)
    app.include_router(router(writer, ArgumentsMetrics(metrics.registry)))
    return app


def main() -> None:
    """Entry point of `python -m services.arguments`."""
    serve(create_app, load(ArgumentsSettings), service="arguments")
