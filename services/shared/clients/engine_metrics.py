"""What the engines did for one service: by adapter, which vLLM does not count, and by engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric

from services.shared.chassis.telemetry import DURATION_BUCKETS, tracer
from services.shared.clients.health import Health
from services.shared.contracts import semconv
from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.usage import Usage

# Every publish brings new names; the series of those that were not asked for the longest time are dropped.
MOST_ADAPTERS = 100


class Spent:
    """What one request has cost so far, and its span."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.usage: Usage | None = None

    def traced(self) -> AbstractContextManager[object]:
        """Inside, whatever is sent carries the request's span. Nothing may be yielded there: it belongs to the task."""
        return nullcontext() if self.span is trace.get_current_span() else trace.use_span(self.span)

    def note(self, usage: Usage) -> None:
        """Takes what a reply says of itself."""
        self.usage = usage


class _Series:
    """The series of one adapter, found once: looking them up by their labels would take longer than counting."""

    def __init__(self, metrics: EngineMetrics, adapter: str, role: str) -> None:
        self.labels = (adapter, role)
        self.inflight = metrics.inflight.labels(adapter, role)
        self.duration = metrics.duration.labels(adapter, role)
        self.prompt, self.cached, self.completion = (
            metrics.tokens.labels(adapter, role, kind) for kind in ("prompt", "cached", "completion")
        )


class EngineMetrics:
    """A collector: `registry.register(metrics)`. Values of `adapter` are the base model, published adapters, or `other`."""

    def __init__(self, role: str, base_model: str) -> None:
        self._role = role
        self._base_model = base_model
        self._adapters: dict[str, _Series] = {}
        by_adapter = ["adapter", "role"]
        self.requests = Counter(
            "agentflux_engine_requests_total",
            "Requests to the engines by outcome: ok, cancelled, or the code of the error. A retry is no request.",
            [*by_adapter, "outcome"],
            registry=None,
        )
        self.duration = Histogram(
            "agentflux_engine_request_duration_seconds",
            "Time of a request to the engines, its retries included.",
            by_adapter,
            buckets=DURATION_BUCKETS,
            registry=None,
        )
        self.inflight = Gauge("agentflux_engine_requests", "Requests that wait for the engines.", by_adapter, registry=None)
        self.tokens = Counter(
            "agentflux_engine_tokens_total",
            "Tokens by kind: prompt (cached ones included), cached, completion.",
            [*by_adapter, "kind"],
            registry=None,
        )
        self.retries = Counter(
            "agentflux_engine_retries_total",
            "Second tries on another engine: refused, lost, silent, busy.",
            ["reason"],
            registry=None,
        )
        self.budget_exhausted = Counter(
            "agentflux_engine_retry_budget_exhausted_total", "Second tries that the budget did not allow.", registry=None
        )
        self.ejections = Counter("agentflux_engine_ejections_total", "Times an engine went down.", ["engine"], registry=None)
        self._engine_up = Gauge("agentflux_engine_up", "1 while requests go to the engine, else 0.", ["engine"], registry=None)
        self._engine_load = Gauge(
            "agentflux_engine_inflight_requests", "Requests of this service at the engine.", ["engine"], registry=None
        )

    def show(self, engine: str, health: Health) -> None:
        """Shows the health of one engine, read when somebody asks for it."""
        self._engine_up.labels(engine).set_function(lambda: health.state != "down")
        self._engine_load.labels(engine).set_function(lambda: health.inflight)

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        by_adapter = (self.requests, self.duration, self.inflight, self.tokens)
        by_engine = (self._engine_up, self._engine_load, self.ejections)
        for metric in (*by_adapter, *by_engine, self.retries, self.budget_exhausted):
            yield from metric.collect()

    @contextmanager
    def request(self, model: str, operation: str = semconv.TEXT_COMPLETION) -> Iterator[Spent]:
        """Measures one request, which is to note what it cost; `operation` is a word of the GenAI conventions."""
        series, outcome, started = self._series(model), "internal_error", time.perf_counter()
        spent = Spent(_span(semconv.span_name(operation, series.labels[0])))
        series.inflight.inc()
        try:
            yield spent
            outcome = "ok"
        except AgentFluxError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            series.inflight.dec()
            series.duration.observe(time.perf_counter() - started)
            self.requests.labels(*series.labels, outcome).inc()
            if spent.usage is not None:
                series.prompt.inc(spent.usage.prompt_tokens)
                series.cached.inc(spent.usage.cached_tokens)
                series.completion.inc(spent.usage.completion_tokens)
            if spent.span.is_recording():
                spent.span.set_attributes(_attributes(series.labels[0], operation, spent.usage or Usage(), outcome))
            spent.span.end()

    def _series(self, model: str) -> _Series:
        # A client can make up models, so only names of the right form become values.
        adapter = model if model == self._base_model or ADAPTER_NAME.fullmatch(model) else "other"
        # Taken out and put in again: the first one is the one that was not asked for the longest time.
        series = self._adapters.pop(adapter, None) or _Series(self, adapter, self._role)
        self._adapters[adapter] = series
        if len(self._adapters) > MOST_ADAPTERS:
            oldest = next(iter(self._adapters))
            del self._adapters[oldest]
            for metric in (self.requests, self.duration, self.inflight, self.tokens):
                metric.remove_by_labels({"adapter": oldest})
        return series


def _span(name: str) -> trace.Span:
    """A span of its own, or the one around it where nobody records the trace: ids of one more would tell nobody anything."""
    around = trace.get_current_span()
    context = around.get_span_context()
    is_unseen = context.is_valid and not context.trace_flags.sampled
    return around if is_unseen else tracer.start_span(name, kind=trace.SpanKind.CLIENT)


def _attributes(model: str, operation: str, usage: Usage, outcome: str) -> dict[str, str | int]:
    return {
        semconv.OPERATION: operation,
        semconv.PROVIDER: semconv.VLLM,
        semconv.REQUEST_MODEL: model,
        semconv.INPUT_TOKENS: usage.prompt_tokens,
        semconv.OUTPUT_TOKENS: usage.completion_tokens,
        **({} if outcome == "ok" else {semconv.ERROR_TYPE: outcome}),
    }
