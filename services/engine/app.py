"""Composes the engine: settings, the supervised vLLM, the door."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from services.engine.api import StandingCollector, router
from services.engine.capacity import LoraRoom, room_for
from services.engine.events import AdapterMetrics
from services.engine.gpus import gpu_obstacle, gpus_present
from services.engine.launch import plan_launch, socket_path
from services.engine.preflight import obstacle
from services.engine.process import VllmProcess
from services.engine.settings import EngineSettings
from services.engine.transport import VllmProbe
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import load
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.errors import AdapterRefused

log = structlog.get_logger()


def create_app(settings: EngineSettings) -> FastAPI:
    """The whole service; vLLM is started with it and ends with it."""
    probe = VllmProbe(settings.vllm_url)
    vllm = VllmProcess(
        plan=lambda: plan_launch(
            settings,
            room=_room(settings),
            cores=sorted(os.sched_getaffinity(0)),
            parent=os.getpid(),
            inherited=os.environ,
        ),
        probe=probe,
        obstacle=lambda: obstacle(settings) or _gpu_obstacle(settings),
        socket=socket_path(settings),
        start_timeout_s=settings.start_timeout_s,
        drain_timeout_s=settings.drain_timeout_s,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        life = asyncio.create_task(vllm.run())
        yield
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
        await probe.aclose()

    async def vllm_ready() -> str | None:
        return None if vllm.standing.state == "ready" else f"{vllm.standing.state}: {vllm.standing.reason}"

    app = FastAPI(title="AgentFlux engine", lifespan=lifespan)
    metrics = install_edge(app, settings, required={"vllm": vllm_ready})
    StandingCollector(vllm.standing, metrics.registry)
    vllm.on_event = AdapterMetrics(metrics.registry).observe
    app.include_router(router(vllm.standing, probe, served_model_name=settings.served_model_name, vllm_url=settings.vllm_url))
    return app


def _gpu_obstacle(settings: EngineSettings) -> str | None:
    # Looked at before each start and not only before the first: a GPU may fall off the bus, and come back.
    return gpu_obstacle(settings, present=gpus_present, visible=os.environ.get("CUDA_VISIBLE_DEVICES"))


def _room(settings: EngineSettings) -> LoraRoom | None:
    if settings.adapter_store is None:
        return None
    store = AdapterStore(settings.adapter_store)
    manifests = list(store.manifests().values())
    cards = {}
    for name in {name for manifest in manifests for name in manifest.current.adapters.names}:
        try:
            cards[name] = store.verify(name)
        except AdapterRefused as error:
            log.error("a published adapter cannot be served", adapter=name, reason=error.message)
    return room_for(manifests, cards, slots=settings.max_loras, rank=settings.max_lora_rank)


def main() -> None:
    """Entry point of `python -m services.engine`."""
    settings = load(EngineSettings)
    if reason := obstacle(settings) or _taken(settings):
        raise SystemExit(f"engine: {reason}")
    serve(create_app, settings, service="engine")


def _taken(settings: EngineSettings) -> str | None:
    # Looked at first, because the web server would look only after vLLM was started.
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((settings.host, settings.port))
        except OSError as error:
            return f"{settings.host}:{settings.port} cannot be had ({error.strerror}); set AGENTFLUX_ENGINE_PORT to a free port"
    if path := socket_path(settings):
        with socket.socket(socket.AF_UNIX) as other, suppress(OSError):
            other.connect(str(path))
            return f"another engine answers at {path}; stop it, or set AGENTFLUX_ENGINE_VLLM_URL to another path"
    return None
