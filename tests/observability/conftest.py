"""The spans of this process, and the metrics page of every real service."""

from __future__ import annotations

import os

# As services/sandbox/__main__.py does, before anything here imports gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from collections.abc import Iterator, Sequence

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from deploy.local import base_model
from deploy.local.plan import REPOSITORY, LocalSettings
from services.arguments.app import create_app as arguments_app
from services.arguments.settings import ArgumentsSettings
from services.callcache.app import create_app as callcache_app
from services.callcache.settings import CallCacheSettings
from services.engine.app import create_app as engine_app
from services.engine.settings import EngineSettings
from services.gateway.app import create_app as gateway_app
from services.gateway.settings import GatewaySettings
from services.sandbox.metrics import SandboxMetrics
from services.selector.app import create_app as selector_app
from services.selector.settings import SelectorSettings
from trainer.metrics import TrainMetrics


class Listener(InMemorySpanExporter):
    """Keeps spans only while a test listens: a process has one tracer provider for ever, and many other tests."""

    listens = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export(spans) if self.listens else SpanExportResult.SUCCESS


@pytest.fixture(scope="session")
def listener() -> Listener:
    """Hears of every span that is recorded in this process."""
    listener = Listener()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(listener))
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider, "somebody else has set a tracer provider in this process"
    return listener


@pytest.fixture
def spans(listener: Listener) -> Iterator[Listener]:
    """The spans of one test."""
    listener.listens = True
    yield listener
    listener.listens = False
    listener.clear()


@pytest.fixture(scope="session")
async def pages(anyio_backend: str) -> dict[str, str]:
    """The metrics page of each service, as it is composed; none of them needs the others for that."""
    model = LocalSettings().model
    base_model.prepare(model, say=lambda _: None)
    served = {"model_dir": model, "base_model": "base", "adapter_store": REPOSITORY / "deploy" / "adapters", "port": 0}
    apps = {
        "gateway": gateway_app(GatewaySettings(toolsets_dir=REPOSITORY / "deploy" / "toolsets", port=0)),
        "selector": selector_app(SelectorSettings(**served)),
        "arguments": arguments_app(ArgumentsSettings(**served)),
        "callcache": callcache_app(CallCacheSettings(port=0)),
        "engine": engine_app(EngineSettings(model_dir=model, port=0)),
    }
    # A live scrape of these two is in tests/sandbox/test_service.py and tests/trainer/test_metrics.py.
    others = {"sandbox": SandboxMetrics().registry, "trainer": TrainMetrics("files").registry}
    return {
        **{name: generate_latest(registry).decode() for name, registry in others.items()},
        **{name: await page(app) for name, app in apps.items()},
    }


async def page(app: FastAPI) -> str:
    """What a scraper gets."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return (await client.get("/metrics")).raise_for_status().text
