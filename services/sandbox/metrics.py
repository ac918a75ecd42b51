"""What the sandbox tells a dashboard: calls by outcome, cold starts, servers running, servers killed."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from services.sandbox.errors import SandboxError
from services.shared.chassis.telemetry import DURATION_BUCKETS


class SandboxMetrics:
    """In a registry of its own, so that two services fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.duration = Histogram(
            "agentflux_sandbox_call_duration_seconds",
            "Time of a tool call, the start of its server included; outcome is ok, tool_error or the reason of the error.",
            ["toolset", "outcome"],
            buckets=(0.001, 0.0025, 0.005, *DURATION_BUCKETS),
            registry=self.registry,
        )
        self.cold_start = Histogram(
            "agentflux_sandbox_cold_start_seconds",
            "Time from a call that needs a new server until that server is ready.",
            ["toolset"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.kills = Counter(
            "agentflux_sandbox_kills_total",
            "Servers that were not used again because a call failed, by its reason.",
            ["toolset", "reason"],
            registry=self.registry,
        )
        self.servers = Gauge("agentflux_sandbox_servers", "MCP servers that run now.", registry=self.registry)
        self.serving = Gauge("agentflux_sandbox_serving", "1 while the self-probe passes.", registry=self.registry)


def reason_of(error: BaseException) -> str:
    """A label for why a call gave no result; one of a few."""
    if isinstance(error, SandboxError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
