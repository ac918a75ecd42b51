"""What is counted of the engines, and that nobody can make it grow."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.shared.clients.engine_metrics import MOST_ADAPTERS, EngineMetrics
from services.shared.clients.health import Health
from services.shared.contracts.errors import ContextLengthExceeded

ADAPTER = "filesystem.read_file--0123456789ab"


@pytest.fixture
def metrics() -> EngineMetrics:
    return EngineMetrics("arguments", "base")


def value(metrics: EngineMetrics, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry.get_sample_value(name, labels)


def outcomes(metrics: EngineMetrics, adapter: str) -> dict[str, float]:
    found = {}
    for outcome in ("ok", "cancelled", "context_length_exceeded", "internal_error"):
        count = value(metrics, "agentflux_engine_requests_total", adapter=adapter, role="arguments", outcome=outcome)
        found |= {outcome: count} if count is not None else {}
    return found


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ContextLengthExceeded("too long"), "context_length_exceeded"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (KeyError("choices"), "internal_error"),
    ],
)
def test_what_a_request_ends_in_is_its_outcome(metrics, error, outcome):
    with pytest.raises(type(error)), metrics.request(ADAPTER):
        raise error
    assert outcomes(metrics, ADAPTER) == {outcome: 1}


def test_requests_under_way_show_by_adapter(metrics):
    labels = {"adapter": ADAPTER, "role": "arguments"}
    with metrics.request(ADAPTER), metrics.request(ADAPTER):
        assert value(metrics, "agentflux_engine_requests", **labels) == 2
    assert value(metrics, "agentflux_engine_requests", **labels) == 0
    assert outcomes(metrics, ADAPTER) == {"ok": 2}


def test_what_is_neither_an_adapter_nor_the_base_model_is_other(metrics):
    for model in ("base", ADAPTER, "gpt-4", "x" * 1000, f"{ADAPTER} ", "filesystem.read_file"):
        with metrics.request(model):
            pass
    assert outcomes(metrics, "other") == {"ok": 4}
    assert outcomes(metrics, "base") == outcomes(metrics, ADAPTER) == {"ok": 1}


def test_the_series_of_adapters_that_were_replaced_are_dropped(metrics):
    for publish in range(3 * MOST_ADAPTERS):
        with metrics.request("base"), metrics.request(f"files.select--{publish:012x}"):
            pass
    page = generate_latest(metrics).decode()
    assert page.count("_count{") == MOST_ADAPTERS
    assert outcomes(metrics, "base") == {"ok": 3 * MOST_ADAPTERS}


def test_an_engine_shows_its_health_as_it_is_now(metrics):
    health = Health()
    metrics.show("http://a", health)
    assert value(metrics, "agentflux_engine_up", engine="http://a") == 1
    health.fails("refused", 0)
    health.inflight = 3
    assert value(metrics, "agentflux_engine_up", engine="http://a") == 0
    assert value(metrics, "agentflux_engine_inflight_requests", engine="http://a") == 3
