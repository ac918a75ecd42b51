"""Composes the call cache: settings, store, memory, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.callcache.api import router
from services.callcache.memory import CallStore, Memory
from services.callcache.metrics import CallCacheMetrics
from services.callcache.settings import CallCacheSettings
from services.callcache.store import RedisStore
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import load


def create_app(settings: CallCacheSettings, *, store: CallStore | None = None) -> FastAPI:
    """The whole service; tests hand in another `store`."""
    store = store or RedisStore(settings.redis_url, timeout_s=settings.redis_timeout_s, ttl_s=settings.ttl_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The metric and the log say from the start whether Redis is there; the service starts either way.
        await memory.ready()
        yield
        await store.aclose()

    app = FastAPI(title="AgentFlux call cache", lifespan=lifespan)
    edge = install_edge(app, settings, optional={"redis": lambda: memory.ready()})
    metrics = CallCacheMetrics(edge.registry)
    memory = Memory(store, metrics, ladder=settings.ladder, max_calls=settings.max_calls_per_conversation)
    app.include_router(router(memory))
    return app


def main() -> None:
    """Entry point of `python -m services.callcache`."""
    serve(create_app, load(CallCacheSettings), service="callcache")
