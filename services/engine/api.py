"""The engine's door: what vLLM is doing, and its metrics. Prompts do not pass here, they go to vLLM itself."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel

from services.engine.process import Standing, State
from services.engine.transport import VllmProbe
from services.shared.chassis.http import page_of_metrics
from services.shared.contracts.errors import EngineUnavailable


class EngineStatus(BaseModel):
    """What vLLM is doing. `vllm_url` is where prompts go; `ready_after_s` is how long its last start took."""

    state: State
    reason: str
    served_model_name: str
    vllm_url: str
    vllm_pid: int | None
    restarts: int
    ready_after_s: float | None


class StandingCollector:
    """The standing as metrics, read when somebody asks for them."""

    def __init__(self, standing: Standing, registry: CollectorRegistry) -> None:
        self._standing = standing
        registry.register(self)

    def collect(self) -> list[Metric]:
        """One gauge and one counter."""
        ready = GaugeMetricFamily(
            "agentflux_engine_ready", "1 while vLLM serves, else 0.", float(self._standing.state == "ready")
        )
        restarts = CounterMetricFamily(
            "agentflux_engine_restarts", "Starts of vLLM after the first one.", self._standing.restarts
        )
        return [ready, restarts]


def router(standing: Standing, probe: VllmProbe, *, served_model_name: str, vllm_url: str) -> APIRouter:
    """The engine's routes."""
    routes = APIRouter()

    @routes.get("/v1/status")
    async def status() -> EngineStatus:
        return EngineStatus(
            state=standing.state,
            reason=standing.reason,
            served_model_name=served_model_name,
            vllm_url=vllm_url,
            vllm_pid=standing.pid,
            restarts=standing.restarts,
            ready_after_s=standing.ready_after_s,
        )

    @routes.get("/metrics/vllm", response_class=PlainTextResponse)
    async def vllm_metrics(request: Request) -> Response:
        # A scraper cannot reach a unix socket, so the page is handed on.
        page = await probe.metrics()
        if page is None:
            raise EngineUnavailable(f"vLLM has no metrics now: {standing.reason or standing.state}")
        return page_of_metrics(request, page.encode(), CONTENT_TYPE_LATEST)

    return routes
