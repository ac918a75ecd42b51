"""What can be told about a turn without knowing what would have been right: fallbacks, repeats, corrections, media not shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from services.gateway.events import Outside, Selected
from services.gateway.metrics import GatewayMetrics
from services.gateway.records.record import TurnRecord
from services.gateway.upstreams import FROM_UPSTREAM
from services.shared.chassis.telemetry import exemplar
from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.tools import JsonObject

Echo = Literal["repeat", "correction"]


class Accuracy:
    """Counts turns that ended well."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def began(self, turn: TurnRecord) -> None:
        """Nothing is known yet."""

    def ended(self, turn: TurnRecord) -> None:
        """Counts the turn's decisions, and what the model was not shown."""
        if turn.request is None:
            return
        self._metrics.not_shown.inc(turn.request.not_shown)
        if (overhead_s := turn.overhead_s) is None:
            return
        self._metrics.overhead.observe(overhead_s, exemplar())
        for outside in turn.outside:
            if reason := fallback_outside(outside):
                self._metrics.fallbacks.labels(reason).inc()
        names = {tool.name for tool in turn.request.tools}
        for each in turn.decided:
            selected = each.selected
            if reason := fallback(selected):
                self._metrics.fallbacks.labels(reason).inc()
            if selected.selection.tool is not None and selected.selection.tool not in names:
                self._metrics.unknown_tools.inc()
            if each.call and each.written:
                toolset = self._metrics.toolset(selected.toolset) if selected.toolset else "other"
                counters = {"repeat": self._metrics.repeated_calls, "correction": self._metrics.corrected_calls}
                if found := echo(turn.request.messages, each.call.tool, each.written.generated.arguments):
                    counters[found].labels(toolset).inc()

    async def aclose(self) -> None:
        """Nothing is held."""


def fallback(selected: Selected) -> str | None:
    """Why a decision is not simply the one of its toolset's adapter; None where it is, or where an upstream took it."""
    if selected.selection.adapter.startswith(FROM_UPSTREAM):
        return None
    if selected.toolset is None:
        return "unregistered"
    # The vote's answer was not likely enough (setting answer_threshold of the selector), so a tool had to win.
    if selected.selection.margin < 0:
        return "overruled"
    return None if ADAPTER_NAME.fullmatch(selected.selection.adapter) else "no_adapter"


def fallback_outside(outside: Outside) -> str | None:
    """The same for a decision that an upstream was asked about; None where it was asked for an answer, which decides nothing."""
    if outside.purpose == "answer":
        return None
    return "upstream_failed" if outside.failure else "low_margin"


def echo(messages: Sequence[JsonObject], tool: str, arguments: str) -> Echo | None:
    """How a call of `tool` stands to the calls that the conversation shows.

    `repeat`: it was made before with the same arguments since the user last spoke. `correction`: it is the first call since
    then, and calls a tool of the time before with other arguments: a sign, no proof, that those had been wrong.
    """
    now, before = _calls_since(messages)
    value = _parsed(arguments)
    if now:
        return "repeat" if any(name == tool and _parsed(text) == value for name, text in now) else None
    earlier = [_parsed(text) for name, text in before if name == tool]
    return "correction" if earlier and value not in earlier else None


def _calls_since(messages: Sequence[JsonObject]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Names and arguments of the calls since the user last spoke, and of those between that and the time before."""
    spans: list[list[tuple[str, str]]] = [[], []]
    users = 0
    for message in reversed(messages):
        if message["role"] == "user":
            users += 1
            if users == len(spans):
                break
        calls = message.get("tool_calls") or []
        spans[users] += [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
    return spans[0], spans[1]


def _parsed(arguments: str) -> Any:
    # Clients may write the same JSON in another way than they got it.
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
