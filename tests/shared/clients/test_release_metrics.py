"""What a dashboard is shown of the releases that serve."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from services.shared.clients.releases import ReleaseMetrics
from services.shared.contracts.adapters import AdapterSet, Release

OLD, NEW, WRITER = "files.select--000000000001", "files.select--000000000002", "files.read_file--000000000003"


def release(number: int, selector: str, promoted_at: str = "1970-01-02T00:00:00Z") -> Release:
    return Release(
        number=number, adapters=AdapterSet(selector=selector, arguments={"read_file": WRITER}), promoted_at=promoted_at
    )


def shown(*releases: Release | None) -> CollectorRegistry:
    registry, metrics = CollectorRegistry(), ReleaseMetrics()
    metrics.register(registry)
    for each in releases:
        metrics.serves("files", each)
    return registry


def adapters(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if line.startswith("agentflux_adapter_info{")]


def test_the_adapters_that_serve_are_named_and_those_before_are_gone() -> None:
    registry = shown(release(1, OLD), release(2, NEW))
    assert adapters(registry) == [
        f'agentflux_adapter_info{{adapter="{name}",release="2",toolset="files"}} 1.0' for name in (NEW, WRITER)
    ]
    assert registry.get_sample_value("agentflux_release", {"toolset": "files"}) == 2
    assert registry.get_sample_value("agentflux_release_promoted_timestamp_seconds", {"toolset": "files"}) == 86400


def test_the_base_model_has_number_0_and_no_adapters() -> None:
    registry = shown(release(1, OLD), None)
    assert adapters(registry) == []
    assert registry.get_sample_value("agentflux_release", {"toolset": "files"}) == 0


def test_a_promotion_without_a_readable_time_has_no_age() -> None:
    registry = shown(release(1, OLD, promoted_at="yesterday"))
    assert len(adapters(registry)) == 2
    assert registry.get_sample_value("agentflux_release_promoted_timestamp_seconds", {"toolset": "files"}) is None


def test_outcomes_are_shown_before_they_happen() -> None:
    registry, metrics = CollectorRegistry(), ReleaseMetrics()
    metrics.register(registry)
    metrics.expect("files")
    assert registry.get_sample_value("agentflux_release_changes_total", {"toolset": "files", "outcome": "refused"}) == 0
