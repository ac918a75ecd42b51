"""The gateway's own metrics: what turns ended in, and how long each stage took."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.gateway.admission import Admission
from services.gateway.events import AnswerChunk, Answered, CallWritten, Event, Selected, Stopped
from services.shared.chassis.telemetry import DURATION_BUCKETS

BREAKER_STATES = {"closed": 0, "half open": 1, "open": 2}


class Guard(Protocol):
    """A breaker, as far as it is shown."""

    @property
    def state(self) -> str: ...

    @property
    def retries(self) -> int: ...


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
        self.caller_requests = Counter(
            "agentflux_caller_requests_total",
            "Requests by the name of the API key and outcome: admitted, or the code of the refusal.",
            ["caller", "outcome"],
            registry=registry,
        )
        self.caller_tokens = Counter(
            "agentflux_caller_tokens_total", "Tokens used, by the name of the API key.", ["caller"], registry=registry
        )
        self.limits_unavailable = Counter(
            "agentflux_limits_unavailable_total",
            "Requests and charges that were not counted because the store of the limits was away.",
            registry=registry,
        )
        self.refused = Counter(
            "agentflux_refused_total",
            "Requests refused: full, too_late, waited_too_long, too_many_requests, invalid_api_key.",
            ["reason"],
            registry=registry,
        )
        self.admission_wait = Histogram(
            "agentflux_admission_wait_seconds",
            "Time that an admitted turn waited for its place.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.turns_running = Gauge("agentflux_turns_running", "Turns that have a place.", registry=registry)
        self.turns_waiting = Gauge("agentflux_turns_waiting", "Turns that wait for one.", registry=registry)
        self.breaker_state = Gauge(
            "agentflux_breaker_state", "Whether it is asked: 0 closed, 1 half open, 2 open.", ["dependency"], registry=registry
        )
        self.dependency_retries = Gauge(
            "agentflux_dependency_retries", "Requests sent again after a lost connection.", ["dependency"], registry=registry
        )
        self.reloads = Counter(
            "agentflux_reloads_total",
            "Files read anew: keys, toolsets; outcome loaded or refused.",
            ["what", "outcome"],
            registry=registry,
        )
        self.stored_responses = Counter(
            "agentflux_stored_responses_total",
            "Responses to be stored, by outcome: stored, too_large, unavailable.",
            ["outcome"],
            registry=registry,
        )

        self.logged = Counter(
            "agentflux_decision_log_rows_total",
            "Rows for the decision log, by outcome: written, busy, too_large, disk, failed.",
            ["outcome"],
            registry=registry,
        )
        self.feedback = Counter(
            "agentflux_feedback_total",
            "Decisions that somebody judged, each once, by registered toolset, tool and verdict.",
            ["toolset", "tool", "correct"],
            registry=registry,
        )
        self.feedback_lost = Counter(
            "agentflux_feedback_lost_total",
            "Turns that cannot be judged because they could not be remembered.",
            registry=registry,
        )
        self.upstream_requests = Counter(
            "agentflux_upstream_requests_total",
            "Requests that left the premises, or would have, by outcome: used, cancelled, or an error's code.",
            ["upstream", "purpose", "outcome"],
            registry=registry,
        )

    def judged(self, toolset: str | None, tool: str | None, *, correct: bool) -> None:
        """Counts a judgement, under the labels that its decision was counted under."""
        self.feedback.labels(toolset or "other", (tool or "answer") if toolset else "other", str(correct).lower()).inc()

    def show(self, admission: Admission, breakers: Mapping[str, Guard]) -> None:
        """Shows what these hold whenever somebody looks; `breakers` by the name of what is behind them."""
        self.turns_running.set_function(lambda: admission.running)
        self.turns_waiting.set_function(lambda: admission.waiting)
        for name, breaker in breakers.items():
            self.breaker_state.labels(name).set_function(partial(_state_of, breaker))
            self.dependency_retries.labels(name).set_function(partial(_retries_of, breaker))

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


def _state_of(breaker: Guard) -> float:
    return BREAKER_STATES[breaker.state]


def _retries_of(breaker: Guard) -> float:
    return breaker.retries
