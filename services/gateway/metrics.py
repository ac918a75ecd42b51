"""The gateway's own metrics: what turns ended in, and how long each stage took."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.gateway.admission import Admission
from services.gateway.events import AnswerChunk, Answered, CallWritten, Event, Selected, Stopped
from services.shared.chassis.telemetry import DURATION_BUCKETS, LabelSet, exemplar

# Series are for ever, so what others name gets only so many: keys (each with its outcomes), tools of the registered toolsets,
# and toolsets.
MOST_CALLERS, MOST_TOOLS, MOST_TOOLSETS = 300, 600, 100

# Seconds; what the gateway and the hops between the services take is far less than what an engine takes.
OVERHEAD_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)

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
        self.caller = LabelSet(MOST_CALLERS)
        self.toolset = LabelSet(MOST_TOOLSETS)
        self._tool = LabelSet(MOST_TOOLS)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        durations = partial(Histogram, buckets=DURATION_BUCKETS, registry=registry)
        self._add_turns(counter, durations)
        self._add_decisions(counter, partial(Histogram, buckets=OVERHEAD_BUCKETS, registry=registry))
        self._add_callers(counter)
        self._add_load(counter, gauge, durations)
        self._add_records(counter)

    def _add_turns(self, counter: partial[Counter], durations: partial[Histogram]) -> None:
        self.turns = counter("agentflux_turns_total", "Turns by outcome: tool_call, answer, stopped, error.", ["outcome"])
        self.first_event = durations("agentflux_first_event_seconds", "Time until the first thing a client can see of a reply.")
        self.stage = durations("agentflux_stage_duration_seconds", "Time of one stage as its service reports it.", ["stage"])
        self.upstream_requests = counter(
            "agentflux_upstream_requests_total",
            "Requests that left the premises, or would have, by outcome: used, cancelled, or an error's code.",
            ["upstream", "purpose", "outcome"],
        )

    def _add_decisions(self, counter: partial[Counter], overheads: partial[Histogram]) -> None:
        self.selections = counter(
            "agentflux_turn_selections_total", "Votes by registered toolset and winner.", ["toolset", "tool"]
        )
        self.overhead = overheads("agentflux_overhead_seconds", "Time of a turn's decisions in which no engine was waited for.")
        self.fallbacks = counter(
            "agentflux_fallbacks_total",
            "Decisions not simply those of the toolset's adapters: unregistered, no_adapter, overruled, low_margin, "
            "upstream_failed.",
            ["reason"],
        )
        self.unknown_tools = counter(
            "agentflux_unknown_tool_total", "Decisions for a tool that the request does not have: always 0."
        )
        self.repeated_calls = counter(
            "agentflux_repeated_calls_total",
            "Calls made before with the same arguments since the user last spoke, by registered toolset.",
            ["toolset"],
        )
        self.corrected_calls = counter(
            "agentflux_corrected_calls_total",
            "First calls after the user spoke that change the arguments of a call before, by registered toolset.",
            ["toolset"],
        )
        self.not_shown = counter(
            "agentflux_media_not_shown_total",
            "Images, sounds and files in results of tools of which the model read a line only, in every turn that had them.",
        )

    def _add_callers(self, counter: partial[Counter]) -> None:
        self.caller_requests = counter(
            "agentflux_caller_requests_total",
            "Requests by the name of the API key and outcome: admitted, or the code of the refusal.",
            ["caller", "outcome"],
        )
        self.caller_tokens = counter("agentflux_caller_tokens_total", "Tokens used, by the name of the API key.", ["caller"])
        self.limits_unavailable = counter(
            "agentflux_limits_unavailable_total",
            "Requests and charges that were not counted because the store of the limits was away.",
        )
        self.refused = counter(
            "agentflux_refused_total",
            "Requests refused: full, too_late, waited_too_long, too_many_requests, invalid_api_key.",
            ["reason"],
        )

    def _add_load(self, counter: partial[Counter], gauge: partial[Gauge], durations: partial[Histogram]) -> None:
        self.admission_wait = durations("agentflux_admission_wait_seconds", "Time that an admitted turn waited for its place.")
        self.turns_running = gauge("agentflux_turns_running", "Turns that have a place.")
        self.turns_waiting = gauge("agentflux_turns_waiting", "Turns that wait for one.")
        self.breaker_state = gauge(
            "agentflux_breaker_state", "Whether it is asked: 0 closed, 1 half open, 2 open.", ["dependency"]
        )
        self.dependency_retries = gauge(
            "agentflux_dependency_retries", "Requests sent again after a lost connection.", ["dependency"]
        )
        self.reloads = counter(
            "agentflux_reloads_total", "Files read anew: keys, toolsets; outcome loaded or refused.", ["what", "outcome"]
        )

    def _add_records(self, counter: partial[Counter]) -> None:
        self.stored_responses = counter(
            "agentflux_stored_responses_total",
            "Responses to be stored, by outcome: stored, too_large, unavailable.",
            ["outcome"],
        )
        self.logged = counter(
            "agentflux_decision_log_rows_total",
            "Rows for the decision log, by outcome: written, busy, too_large, disk, failed.",
            ["outcome"],
        )
        # Seen from the start: a first loss that came out of nothing would be no increase to Prometheus.
        for outcome in ("written", "busy", "too_large", "disk", "failed"):
            self.logged.labels(outcome)
        self.feedback = counter(
            "agentflux_feedback_total",
            "Decisions that somebody judged, each once, by registered toolset, tool and verdict.",
            ["toolset", "tool", "correct"],
        )
        self.feedback_lost = counter(
            "agentflux_feedback_lost_total", "Turns that cannot be judged because they could not be remembered."
        )

    def _decision(self, toolset: str | None, tool: str | None) -> tuple[str, str]:
        """Labels of a decision. A tool's name is one only where the name is ours: any client can make up others."""
        decision = (toolset or "other", tool or "answer")
        return decision if toolset and self._tool(".".join(decision)) != "other" else ("other", "other")

    def judged(self, toolset: str | None, tool: str | None, *, correct: bool) -> None:
        """Counts a judgement, under the labels that its decision was counted under."""
        self.feedback.labels(*self._decision(toolset, tool), str(correct).lower()).inc()

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
            # The most frequent one first.
            case AnswerChunk() | Answered():
                return "answer"
            case Selected(selection, toolset):
                self.selections.labels(*self._decision(toolset, selection.tool)).inc()
                self.stage.labels("select").observe(sum(selection.timings.values()), exemplar())
                return None
            case CallWritten(generated):
                self.stage.labels("arguments").observe(sum(generated.timings.values()), exemplar())
                return "tool_call"
            case Stopped():
                return "stopped"
            case _:
                return None


def _state_of(breaker: Guard) -> float:
    return BREAKER_STATES[breaker.state]


def _retries_of(breaker: Guard) -> float:
    return breaker.retries
