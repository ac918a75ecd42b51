"""What the plugin tells, and what becomes of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from services.engine.events import AdapterEvicted, AdapterLoaded, AdapterMetrics, AdapterRefusedEvent, alias_of, parse_event

NAME = "filesystem.select--0123456789ab"


def test_events_are_lines_of_json_behind_a_prefix():
    line = f'agentflux-event {{"event":"adapter_loaded","adapter":"{NAME}","seconds":0.25}}'
    assert parse_event(line) == AdapterLoaded(event="adapter_loaded", adapter=NAME, seconds=0.25)


@pytest.mark.parametrize(
    "line",
    ["Loaded adapter", 'agentflux-event {"event":', 'agentflux-event {"event":"other"}', '{"event":"adapter_evicted"}'],
)
def test_anything_else_is_a_log_line(line):
    assert parse_event(line) is None


def test_versions_are_no_labels_and_strangers_have_none():
    assert alias_of(NAME) == "filesystem.select"
    assert alias_of("../../etc/passwd") == "other"


def test_each_event_is_counted():
    metrics = AdapterMetrics(registry := CollectorRegistry())
    metrics.observe(AdapterLoaded(event="adapter_loaded", adapter=NAME, seconds=0.2))
    metrics.observe(AdapterEvicted(event="adapter_evicted", adapter=NAME))
    metrics.observe(AdapterRefusedEvent(event="adapter_refused", adapter="../x", reason="no name"))
    assert registry.get_sample_value("agentflux_adapter_loads_total", {"adapter": "filesystem.select"}) == 1
    assert registry.get_sample_value("agentflux_adapter_load_seconds_sum") == 0.2
    assert registry.get_sample_value("agentflux_adapter_evictions_total", {"adapter": "filesystem.select"}) == 1
    assert registry.get_sample_value("agentflux_adapter_refusals_total", {"adapter": "other"}) == 1
