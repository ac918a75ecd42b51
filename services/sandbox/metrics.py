"""What the sandbox tells a dashboard: calls by outcome, cold starts, servers running, servers killed."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge, Histogram

from services.sandbox.errors import SandboxError
from services.shared.chassis.telemetry import DURATION_BUCKETS, LabelSet, LoopLag, new_registry

# Toolsets, and their outcomes of calls, that get series of their own, however many files and functions bring while the sandbox
# runs: with the cap of 5,000 series in mind. A histogram is 20 of them.
MOST_TOOLSETS, MOST_OUTCOMES = 40, 150


class SandboxMetrics:
    """In a registry of its own, so that two services fit into one process."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.loop_lag = LoopLag(self.registry)
        self.toolset = LabelSet(MOST_TOOLSETS)
        self._outcome = LabelSet(MOST_OUTCOMES)
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
        self.taken = Counter(
            "agentflux_sandbox_servers_taken_total",
            "Calls by the server they got: their session's own, a spare one that was started before, or a new one.",
            ["toolset", "server"],
            registry=self.registry,
        )
        self.queue = Histogram(
            "agentflux_sandbox_queue_seconds",
            "Time that a call waited because every server was at work; calls that did not wait are not counted.",
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.waiting = Gauge("agentflux_sandbox_waiting", "Calls that wait for a server now.", registry=self.registry)
        self.crash_loops = Counter(
            "agentflux_sandbox_crash_loops_total",
            "Times that a toolset's servers had died so often in a row that none was started for a while.",
            ["toolset"],
            registry=self.registry,
        )
        self.egress_refused = Counter(
            "agentflux_sandbox_egress_refused_total",
            "Connections to the outside that the proxy refused or broke off, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.servers = Gauge("agentflux_sandbox_servers", "MCP servers that run now.", registry=self.registry)
        self.trajectory_records = Counter(
            "agentflux_sandbox_trajectory_records_total",
            "Records of the trajectory log: written, or lost because the disk would not take the start of a call.",
            ["outcome"],
            registry=self.registry,
        )
        self.serving = Gauge("agentflux_sandbox_serving", "1 while the self-probe passes.", registry=self.registry)

    def call(self, toolset: str, outcome: str) -> Histogram:
        """Where the duration of such a call is counted."""
        known = self._outcome(f"{self.toolset(toolset)} {outcome}") != "other"
        return self.duration.labels(self.toolset(toolset) if known else "other", outcome)


def reason_of(error: BaseException) -> str:
    """A label for why a call gave no result; one of a few."""
    if isinstance(error, SandboxError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
