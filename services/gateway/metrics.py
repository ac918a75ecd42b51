"""The gateway's own metrics: what turns ended in, and how long each stage took."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.gateway.events import AnswerChunk, Answered, CallWritten, Event, Selected, Stopped
from services.shared.chassis.telemetry import DURATION_BUCKETS


class GatewayMetrics:
    """Labels come from closed sets: the registered toolsets or `other`, and the outcomes below."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.turns = Counter(
            "agentflux_turns_total", "Turns by outcome: tool_call, answer, stopped, error.", ["outcome"], registry=registry
        )
        self.selections = Counter(
            "agentflux_turn_selections_total", "Votes by registered toolset and winner.", ["toolset", "tool"], registry=registry
        )
        self.first_event = Histogram(
            "agentflux_first_event_seconds",
            "Time until the first thing a client can see of a reply.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.stage = Histogram(
            "agentflux_stage_duration_seconds",
            "Time of one stage as its service reports it.",
            ["stage"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )

    def observe(self, event: Event) -> str | None:
        """Counts one event; returns the outcome it settles, if it does."""
        match event:
            case Selected(selection, toolset):
                # A tool's name is a label only where the name is ours: any client can make up others.
                self.selections.labels(toolset or "other", (selection.tool or "answer") if toolset else "other").inc()
                self.stage.labels("select").observe(sum(selection.timings.values()))
                return None
            case CallWritten(generated):
                self.stage.labels("arguments").observe(sum(generated.timings.values()))
                return "tool_call"
            case Answered() | AnswerChunk():
                return "answer"
            case Stopped():
                return "stopped"
            case _:
                return None
