"""The call cache's own metrics: repeated calls, steps of the ladder, and whether Redis answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.shared.contracts.calls import Standing


class CallCacheMetrics:
    """Never labelled by tool or conversation, which any client may name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._hits = Counter(
            "agentflux_callcache_hits_total", "Look backs that found a call made before with the same result.", registry=registry
        )
        self._misses = Counter("agentflux_callcache_misses_total", "Look backs in which every call was new.", registry=registry)
        self._steps = Counter(
            "agentflux_callcache_steps_total", "Calls that stood on the ladder, by step, once per look back.", ["step"],
            registry=registry,
        )  # fmt: skip
        self._store_errors = Counter(
            "agentflux_callcache_store_errors_total", "Times Redis did not do what it was asked.", registry=registry
        )
        self._store_up = Gauge("agentflux_callcache_store_up", "1 when Redis answered last time, else 0.", registry=registry)

    def looked_back(self, counts: Collection[int], standings: Iterable[Standing]) -> None:
        """Counts one look back by its repeats and its standings."""
        (self._hits if max(counts, default=0) > 1 else self._misses).inc()
        for standing in standings:
            self._steps.labels(standing.step).inc()

    def store_answered(self) -> None:
        """Redis is up."""
        self._store_up.set(1)

    def store_failed(self) -> None:
        """Redis is down, slow, or refuses."""
        self._store_up.set(0)
        self._store_errors.inc()
