"""Composes the gateway: settings, toolsets, clients of the other services, routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from limits.aio.storage import MemoryStorage, Storage

from services.gateway.admission import Admission
from services.gateway.api import chat, feedback, messages, models, relay, responses
from services.gateway.api.callers import Callers
from services.gateway.api.deadline import Deadline
from services.gateway.api.headers import TruthHeaders
from services.gateway.api.paths import Paths
from services.gateway.api.turns import Turns, Watcher
from services.gateway.keys import Caller, Keys, read_callers
from services.gateway.limits import Limits, own_time
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.records.accuracy import Accuracy
from services.gateway.records.decision_log import DecisionLog
from services.gateway.records.feedback import Feedback
from services.gateway.records.store import RedisBlobs, RedisCounters
from services.gateway.records.stored import Blobs, MemoryBlobs, StoredResponses
from services.gateway.reloading import Reloaded, watching
from services.gateway.settings import GatewaySettings
from services.gateway.toolsets import Catalogue, read_catalogue
from services.gateway.upstreams import Upstreams, read_upstreams
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.jsonl import JsonLines
from services.shared.chassis.settings import load
from services.shared.chassis.tls import CertificateTimes, TlsFiles
from services.shared.clients.adapters import AdapterStore
from services.shared.clients.arguments import ArgumentsClient
from services.shared.clients.breaker import Breaker
from services.shared.clients.callcache import CallCacheClient
from services.shared.clients.engines import EngineFleet
from services.shared.clients.http import HttpClient
from services.shared.clients.sandbox import SandboxClient
from services.shared.clients.selector import SelectorClient
from services.shared.clients.upstream import UpstreamClient

log = structlog.get_logger()


class Closing(Protocol):
    """What has to be closed in the end."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Services:
    """Clients of the services behind the gateway."""

    engine: EngineFleet
    selector: SelectorClient
    arguments: ArgumentsClient
    memory: CallCacheClient
    sandbox: SandboxClient
    breakers: Mapping[str, Breaker]


def create_app(settings: GatewaySettings) -> FastAPI:
    """The whole service; other services are contacted only when a request comes."""
    catalogue = read_catalogue(settings.base_model, settings.toolsets_dir)
    keys = Keys(_callers(settings))
    services = _services(settings)
    responses_kept, turns_kept, counters = _stores(settings)
    look_ahead = LookAhead(services.arguments, adapters=settings.look_ahead)
    closing: list[Closing] = [
        responses_kept, turns_kept, services.engine, services.selector, services.arguments, services.memory,
        services.sandbox, look_ahead,
    ]  # fmt: skip
    watched: list[Reloaded] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info("callers", policy=keys.policy)
        async with watching(watched, every_s=settings.reload_s):
            yield
        # What was built last is closed first: it may still need the others.
        for part in reversed(closing):
            await part.aclose()

    async def logs_decisions() -> str | None:
        return await decision_log.ready() if decision_log else None

    # Plain `curl -d` sends no JSON content type; there is only one type a body can have here.
    app = FastAPI(title="AgentFlux", lifespan=lifespan, strict_content_type=False)
    edge = install_edge(
        app,
        settings,
        required={name: getattr(services, name).ready for name in ("engine", "selector", "arguments")},
        optional={
            "callcache": services.memory.ready,
            "sandbox": services.sandbox.ready,
            "responses": responses_kept.ready,
            "keys": lambda: watched[0].ready(),
            "toolsets": lambda: watched[1].ready(),
            **({"decision_log": logs_decisions} if settings.decision_log else {}),
        },
        details={"callers": lambda: keys.policy},
    )
    edge.registry.register(services.engine.metrics)
    CertificateTimes(_sandbox_tls(settings), edge.registry)
    metrics = GatewayMetrics(edge.registry)
    watched += _watched(settings, keys, catalogue, metrics)

    upstreams, elsewhere = _upstreams(settings, catalogue, metrics)
    pipeline = Pipeline(
        services.engine,
        services.selector,
        services.arguments,
        services.memory,
        catalogue,
        settings.ladder,
        look_ahead,
        upstreams,
        settings.same_failures,
    )
    admission = Admission(max_turns=settings.max_turns, max_queue=settings.max_queue, queue_timeout_s=settings.queue_timeout_s)
    metrics.show(admission, services.breakers)
    decision_log = _decision_log(settings, catalogue, metrics)
    judging = Feedback(turns_kept, metrics, catalogue, decision_log)
    watchers: list[Watcher] = [*([decision_log] if decision_log else []), judging, Accuracy(metrics)]
    turns = Turns(pipeline, metrics, settings.request_timeout_s, settings.keepalive_s, watchers, admission)
    clock = counters.now if isinstance(counters, RedisCounters) else own_time
    limits = Limits(counters, timeout_s=settings.limits_timeout_s, failed=metrics.limits_unavailable.inc, clock=clock)
    closing += [*elsewhere, *watchers, *([counters] if isinstance(counters, RedisCounters) else []), limits]

    stored = StoredResponses(
        responses_kept, metrics, max_record_bytes=settings.response_max_bytes, max_history_bytes=settings.max_body_bytes
    )
    for door in _doors(settings, turns, catalogue, stored, judging, services.engine):
        app.include_router(door)
    # Around the edge, the innermost first.
    app.add_middleware(Callers, keys=keys, limits=limits, metrics=metrics, max_requests=settings.max_requests)
    _add_outer_layers(app, settings)
    return app


def _doors(
    settings: GatewaySettings,
    turns: Turns,
    catalogue: Catalogue,
    stored: StoredResponses,
    judging: Feedback,
    engine: EngineFleet,
) -> tuple[APIRouter, ...]:
    releases = models.PublishedReleases(AdapterStore(settings.adapter_store).look) if settings.adapter_store else None
    strict, unknown = settings.strict_fields, settings.unknown_tools
    return (
        chat.router(turns, catalogue, strict_fields=strict, unknown_tools=unknown),
        responses.router(turns, catalogue, stored, strict_fields=strict, unknown_tools=unknown),
        messages.router(turns, catalogue, unknown_tools=unknown),
        relay.router(turns, engine, catalogue),
        feedback.router(judging),
        models.router(catalogue, releases, created=int(time.time())),
    )


def _add_outer_layers(app: FastAPI, settings: GatewaySettings) -> None:
    """What every request passes before it is known who calls, the innermost first."""
    if settings.cors_origins:
        everything = ["*"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=everything,
            allow_headers=everything,
            expose_headers=everything,
        )
    app.add_middleware(messages.AnthropicErrors)
    app.add_middleware(Paths)
    app.add_middleware(TruthHeaders)
    app.add_middleware(Deadline, request_timeout_s=settings.request_timeout_s)


def _services(settings: GatewaySettings) -> Services:
    breakers = {
        name: Breaker(failures=settings.breaker_failures, wait_s=settings.breaker_wait_s)
        for name in ("selector", "arguments", "callcache")
    }

    def stage(name: str, url: str) -> HttpClient:
        return HttpClient(
            url,
            service=name,
            timeout_s=settings.stage_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
            breaker=breakers[name],
        )

    return Services(
        engine=EngineFleet.connect(
            settings.engine_url, timeout_s=settings.answer_timeout_s, role="answers", base_model=settings.base_model
        ),
        selector=SelectorClient(stage("selector", settings.selector_url)),
        arguments=ArgumentsClient(stage("arguments", settings.arguments_url)),
        memory=CallCacheClient(settings.callcache_url, timeout_s=settings.callcache_timeout_s, breaker=breakers["callcache"]),
        sandbox=SandboxClient(settings.sandbox_target, tls=_sandbox_tls(settings)),
        breakers=breakers,
    )


def _sandbox_tls(settings: GatewaySettings) -> TlsFiles | None:
    files = TlsFiles(settings.sandbox_certificate, settings.sandbox_key, settings.sandbox_ca)
    return None if files == TlsFiles(None, None, None) else files


def _stores(settings: GatewaySettings) -> tuple[Blobs, Blobs, Storage]:
    """Where stored responses, turns that may be judged, and the counters of limits are kept: in Redis, or in this process."""
    if (url := settings.redis_url) is None:
        few = MemoryBlobs(ttl_s=settings.feedback_ttl_s, max_bytes=16 * 1024 * 1024)
        return MemoryBlobs(ttl_s=settings.response_ttl_s), few, MemoryStorage()
    timeout_s = settings.redis_timeout_s
    return (
        RedisBlobs(url, timeout_s=timeout_s, ttl_s=settings.response_ttl_s),
        RedisBlobs(url, timeout_s=timeout_s, ttl_s=settings.feedback_ttl_s),
        RedisCounters(url, timeout_s=settings.limits_timeout_s),
    )


def _upstreams(
    settings: GatewaySettings, catalogue: Catalogue, metrics: GatewayMetrics
) -> tuple[Upstreams, list[UpstreamClient]]:
    """What may leave, and the clients of where to."""
    file = read_upstreams(settings.upstreams_file, catalogue.toolsets)
    elsewhere = {
        name: UpstreamClient(each.base_url, name=name, model=each.model, key_file=each.key_file, timeout_s=each.timeout_s)
        for name, each in file.upstreams.items()
    }
    asked = Upstreams(file, elsewhere, lambda *labels: metrics.upstream_requests.labels(*labels).inc())
    return asked, list(elsewhere.values())


def _callers(settings: GatewaySettings) -> list[Caller]:
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    return read_callers(settings.keys_file, api_key, settings.api_key_file)


def _watched(settings: GatewaySettings, keys: Keys, catalogue: Catalogue, metrics: GatewayMetrics) -> tuple[Reloaded, Reloaded]:
    """The keys and the toolsets, put in force where the requests look for them."""

    def load_toolsets() -> None:
        if not settings.toolsets_dir.is_dir():
            raise ValueError(f"{settings.toolsets_dir} (setting toolsets_dir) is no folder any more")
        catalogue.replace(read_catalogue(settings.base_model, settings.toolsets_dir))

    return (
        Reloaded(
            "keys",
            files=lambda: filter(None, (settings.keys_file, settings.api_key_file)),
            load=lambda: keys.replace(_callers(settings)),
            outcomes=metrics.reloads,
        ),
        Reloaded(
            "toolsets",
            files=lambda: settings.toolsets_dir.glob("*/tools.json"),
            load=load_toolsets,
            outcomes=metrics.reloads,
        ),
    )


def _decision_log(settings: GatewaySettings, catalogue: Catalogue, metrics: GatewayMetrics) -> DecisionLog | None:
    if settings.decision_log is None:
        return None
    turns, feedback = (
        JsonLines(
            settings.decision_log,
            name,
            max_bytes=settings.decision_log_file_bytes,
            max_files=settings.decision_log_files,
            count=lambda outcome: metrics.logged.labels(outcome).inc(),
        )
        for name in ("decisions", "feedback")
    )
    return DecisionLog(turns, feedback, catalogue, sample=settings.decision_log_sample)


def main() -> None:
    """Entry point of `python -m services.gateway`."""
    serve(create_app, load(GatewaySettings), service="gateway")
