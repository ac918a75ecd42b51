"""Traces and metrics: the tracer every service uses, and the metrics every HTTP service has."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

tracer = trace.get_tracer("agentflux")

# Seconds; the buckets of the GenAI conventions' gen_ai.client.operation.duration, which reach from a cache hit to a CPU prefill.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


def configure_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Installs a tracer provider, so that trace ids exist and travel; spans are exported only if there is a collector."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"agentflux-{service}"}))
    if otlp_endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)


class HttpMetrics:
    """The metrics of one HTTP service, in a registry of its own, so that two services fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
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
