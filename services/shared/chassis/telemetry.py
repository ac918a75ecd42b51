"""Traces and metrics: the tracer every service uses, the registry of its metrics, and those every HTTP service has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

tracer = trace.get_tracer("agentflux")

# Seconds; the buckets of the GenAI conventions' gen_ai.client.operation.duration, which reach from a cache hit to a CPU prefill.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

# How often the event loop is asked to come back on time.
LAG_INTERVAL_S = 0.25


def configure_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Installs a tracer provider, so that trace ids exist and travel; spans are recorded only if there is a collector.

    With one, OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say which share of the traces is recorded (by default all, but
    none whose caller says that it does not record it).
    """
    resource = Resource.create({"service.name": f"agentflux-{service}"})
    if otlp_endpoint:
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")))
    else:
        # A span that nobody will see costs half of one that is recorded, and still has its ids.
        provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)
    # Of the W3C headers only traceparent and tracestate: nobody here reads baggage.
    propagate.set_global_textmap(TraceContextTextMapPropagator())


def describe(attributes: Mapping[str, AttributeValue | None]) -> None:
    """Sets attributes of the current span, None left out; does nothing where the span is not recorded."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def exemplar() -> dict[str, str] | None:
    """The current trace as the exemplar of a measurement; None where nobody recorded it, so that nothing could be found."""
    context = trace.get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}"} if context.trace_flags.sampled else None


def new_registry() -> CollectorRegistry:
    """A registry of its own for each service, so that two fit into one process; with the metrics of the process."""
    # A `_created` series beside each counter and histogram would double their number and tell nothing that rate() does not.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class LabelSet:
    """Values of a label that somebody else chooses, such as the names in a file: the first `most` as they are, then `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value to count under."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return "other"
        self._known.add(value)
        return value


class LoopLag:
    """How late the event loop is: what blocks it, blocks every request of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag = Histogram(
            "agentflux_event_loop_lag_seconds",
            "How much later than asked for the event loop came back to a waiting task.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=registry,
        )

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Measures until the end of the block."""
        task = asyncio.create_task(self._measure())
        try:
            yield
        finally:
            task.cancel()

    async def _measure(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag.observe(max(0.0, time.perf_counter() - asked - LAG_INTERVAL_S))


class HttpMetrics:
    """The metrics of one HTTP service."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.loop_lag = LoopLag(self.registry)
        self.duration = Histogram(
            "agentflux_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its reply.",
            ["route", "status"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.inflight = Gauge("agentflux_inflight_requests", "Requests being served.", registry=self.registry)
        self.cancelled = Counter(
            "agentflux_cancelled_requests_total",
            "Requests whose client left before the reply.",
            ["route"],
            registry=self.registry,
        )
