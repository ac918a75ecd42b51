"""How many series a service shows when strangers, keys, toolsets and adapters come in any number; and exemplars."""

from __future__ import annotations

import re

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from services.gateway.events import CallWritten, Selected
from services.gateway.metrics import GatewayMetrics
from services.sandbox import errors
from services.sandbox.metrics import SandboxMetrics
from services.selector.api import SelectionMetrics
from services.shared.chassis.telemetry import HttpMetrics, LabelSet
from services.shared.clients.engine_metrics import EngineMetrics
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.selection import Selection
from tests.observability.promql import metrics_of
from tests.stack import running_stack

pytestmark = pytest.mark.anyio

MOST_SERIES = 5000
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}


def series(page: str) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith("#"))


def selection(tool: str | None, adapter: str = "base") -> Selection:
    fields = {"tool": tool, "probabilities": {str(tool): 1.0}, "margin": 1.0, "valid_mass": 1.0, "strategy": "exact"}
    return Selection.model_validate({**fields, "adapter": adapter})


@pytest.mark.real
async def test_strangers_cannot_make_series() -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        # The scrapes have series, too.
        await client.get("/metrics")
        sizes = []
        for wave in range(2):
            for number in range(6):
                name = f"tool_{wave}_{number}"
                tool = {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
                body = {"model": "base", "user": name, "messages": [{"role": "user", "content": f"call {name}"}], "tools": [tool]}
                headers = {"authorization": f"Bearer {name}", "x-session-id": name}
                await client.post("/v1/chat/completions", json=body, headers=headers)
                await client.post("/v1/chat/completions", json={**body, "model": name}, headers=headers)
                await client.get(f"/v1/{name}")
            sizes.append(series((await client.get("/metrics")).text))
    assert sizes[0] == sizes[1] < 1000


def test_a_gateway_with_any_number_of_keys_and_toolsets_stays_below_the_cap() -> None:
    edge = HttpMetrics()
    metrics = GatewayMetrics(edge.registry)
    engine = EngineMetrics("answer", "base")
    edge.registry.register(engine)
    for number in range(2000):
        toolset, tool = f"toolset-{number % 400}", f"tool_{number}"
        metrics.observe(Selected(selection(tool), toolset))
        metrics.observe(CallWritten(GeneratedArguments(arguments="{}", attempts=1, adapter="base")))
        for correct in (True, False):
            metrics.judged(toolset, tool, correct=correct)
        for outcome in ("admitted", "rate_limit_exceeded", "forbidden"):
            metrics.caller_requests.labels(metrics.caller(f"team-{number}"), outcome).inc()
        metrics.caller_tokens.labels(metrics.caller(f"team-{number}")).inc(7)
        for counter in (metrics.repeated_calls, metrics.corrected_calls):
            counter.labels(metrics.toolset(toolset)).inc()
        with engine.request(f"x.select--{number % 5:012x}"):
            pass
    page = generate_latest(edge.registry).decode()
    assert series(page) < MOST_SERIES
    # Nothing is lost: what has no series of its own is in `other`.
    admitted = re.findall(r'agentflux_caller_requests_total\{caller="[^"]+",outcome="admitted"\} (\S+)', page)
    assert sum(map(float, admitted)) == 2000
    judged = re.findall(r"agentflux_feedback_total\{[^}]+\} (\S+)", page)
    assert sum(map(float, judged)) == 4000


def test_a_selector_that_sees_a_thousand_publishes_stays_below_the_cap() -> None:
    edge = HttpMetrics()
    votes, engine = SelectionMetrics(edge.registry), EngineMetrics("selector", "base")
    edge.registry.register(engine)
    for number in range(1000):
        adapter = f"files.select--{number:012x}"
        votes.observe(selection("read", adapter))
        with engine.request(adapter):
            pass
    page = generate_latest(edge.registry).decode()
    assert series(page) < MOST_SERIES
    assert f'adapter="{adapter}"' in page, "the one that votes now is shown"


async def test_a_sandbox_that_reloads_toolsets_for_ever_stays_below_the_cap() -> None:
    metrics = SandboxMetrics()
    reasons = sorted({each.reason for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "reason")})
    assert len(reasons) > 10
    for number in range(1000):
        name = f"toolset-{number}"
        for outcome in ("ok", "tool_error", "CANCELLED", *reasons):
            metrics.call(name, outcome).observe(0.1)
        for reason in ("CANCELLED", *reasons):
            metrics.kills.labels(metrics.toolset(name), reason).inc()
        metrics.cold_start.labels(metrics.toolset(name)).observe(0.1)
    page = generate_latest(metrics.registry).decode()
    assert series(page) < MOST_SERIES
    # Nothing is lost: what has no series of its own is in `other`.
    counted = re.findall(r'agentflux_sandbox_call_duration_seconds_count\{outcome="ok",toolset="([^"]+)"\} (\S+)', page)
    assert sum(float(count) for _, count in counted) == 1000
    assert dict(counted)["toolset-0"] == "1.0"


def test_a_label_set_takes_the_first_values_and_counts_the_rest_as_other() -> None:
    names = LabelSet(2)
    assert [names(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]


@pytest.mark.real
async def test_durations_lead_to_a_recorded_trace_where_openmetrics_is_asked_for(spans: InMemorySpanExporter) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "hello"}]}
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        await client.post("/v1/chat/completions", json=body)
        plain, open_metrics = [await client.get("/metrics", headers=headers) for headers in ({}, OPENMETRICS)]
    [trace_id] = {
        f"{span.context.trace_id:032x}" for span in spans.get_finished_spans() if span.name == "POST /v1/chat/completions"
    }
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.text.endswith("# EOF\n")
    for metric in ("agentflux_request_duration_seconds", "agentflux_first_event_seconds"):
        assert re.search(rf'{metric}_bucket{{[^}}]*}} \S+ # {{trace_id="{trace_id}"}}', open_metrics.text)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert trace_id not in plain.text


@pytest.mark.real
async def test_the_event_loops_lag_is_measured_while_a_service_runs() -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        for _ in range(100):
            page = (await client.get("/metrics")).text
            if re.search(r"agentflux_event_loop_lag_seconds_count [1-9]", page):
                return
    pytest.fail("nothing was measured")


def test_the_reader_of_queries_finds_every_metric() -> None:
    query = "sum(rate(a_total[5m])) / (b or vector(0)) > 1 and histogram_quantile(0.9, sum by (le) (rate(c[$__rate_interval])))"
    assert metrics_of(query) == {"a_total", "b", "c"}
    assert metrics_of("topk(3, -d) unless on (x) max_over_time(e:f:g[1d:5m] offset 1h)") == {"d", "e:f:g"}
    with pytest.raises(ValueError, match=r"parse|unexpected|unclosed"):
        metrics_of("sum(rate(a_total[5m])")
