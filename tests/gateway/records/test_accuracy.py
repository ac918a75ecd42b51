"""What a turn tells about its own decisions: fallbacks, repeated calls, corrections by the user, unknown tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.events import CallOpened, CallWritten, Outside, Selected
from services.gateway.metrics import GatewayMetrics
from services.gateway.records.accuracy import Accuracy, echo, fallback, fallback_outside
from services.gateway.records.record import Decided, TurnRecord
from services.gateway.wire.requests import ChatBody, ChatRequest, understood
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.selection import Selection
from services.shared.contracts.tools import JsonObject
from tests.gateway.watched import TOOLS

ADAPTER = "files.select--0123456789ab"


def selected(
    tool: str | None = "read_file", *, adapter: str = ADAPTER, margin: float = 0.5, toolset: str | None = "files"
) -> Selected:
    fields: dict[str, Any] = {"tool": tool, "probabilities": {}, "margin": margin, "valid_mass": 1.0, "strategy": "exact"}
    return Selected(Selection(adapter=adapter, **fields), toolset)


def chat_request(messages: list[JsonObject]) -> ChatRequest:
    body = ChatBody.model_validate({"model": "base", "messages": messages, "tools": [tool.openai() for tool in TOOLS]})
    return understood(body, default_tools=(), session=None)


def user(text: str = "go on") -> JsonObject:
    return {"role": "user", "content": text}


def call(tool: str, **arguments: object) -> list[JsonObject]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (selected(), None),
        (selected(toolset=None, adapter="base"), "unregistered"),
        (selected(adapter="base"), "no_adapter"),
        (selected(adapter="base", margin=-0.1), "overruled"),
        # What a second opinion says is counted where it was asked for.
        (selected(adapter="upstream:cloud", margin=0.1), None),
        (selected(toolset=None, adapter="upstream:cloud", margin=-0.1), None),
        (selected(None), None),
    ],
)
def test_a_decision_that_is_not_the_adapters_is_a_fallback_by_its_reason(decision: Selected, reason: str | None) -> None:
    assert fallback(decision) == reason


def test_an_upstream_that_was_asked_is_a_fallback_and_so_is_its_failure() -> None:
    assert fallback_outside(Outside("cloud", "low_margin")) == "low_margin"
    assert fallback_outside(Outside("cloud", "low_margin", "upstream_error")) == "upstream_failed"


@pytest.mark.parametrize("failure", [None, "upstream_error"])
def test_an_answer_from_an_upstream_is_no_decision(failure: str | None) -> None:
    assert fallback_outside(Outside("cloud", "answer", failure)) is None


def test_a_second_opinion_is_one_fallback() -> None:
    registry = CollectorRegistry()
    turn = TurnRecord(chat_request([user()]))
    for event in (Outside("cloud", "low_margin"), selected(adapter="upstream:cloud", margin=0.1)):
        turn.note(event)
    Accuracy(GatewayMetrics(registry)).ended(turn)
    values = {
        reason: registry.get_sample_value("agentflux_fallbacks_total", {"reason": reason})
        for reason in ("low_margin", "no_adapter")
    }
    assert values == {"low_margin": 1, "no_adapter": None}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user()], None),
        # The same JSON in another spelling is the same call.
        ([user(), *call("read_file", path="a", head=3)], "repeat"),
        ([user(), *call("read_file", path="b")], None),
        ([user(), *call("list", path="a", head=3)], None),
        ([user(), *call("read_file", path="b"), user("no, a")], "correction"),
        ([user(), *call("read_file", path="a", head=3), user("again")], None),
        # A correction is the first thing after the user spoke, and of what was done just before.
        ([user(), *call("read_file", path="b"), user("no, a"), *call("list")], None),
        ([user(), *call("read_file", path="b"), user("thanks"), {"role": "assistant", "content": "ok"}, user("now a")], None),
    ],
)
def test_a_call_repeats_or_corrects_those_before_it(messages: list[JsonObject], expected: str | None) -> None:
    assert echo(messages, "read_file", '{"head":3,"path":"a"}') == expected


def test_arguments_that_are_no_json_are_compared_as_text() -> None:
    messages = [user(), *call("read_file")]
    messages[1]["tool_calls"][0]["function"]["arguments"] = "{path"
    assert echo(messages, "read_file", "{path") == "repeat"
    assert echo(messages, "read_file", "{pat") is None


def test_a_turn_is_counted_once_it_ended() -> None:
    registry = CollectorRegistry()
    accuracy = Accuracy(GatewayMetrics(registry))
    messages = [user(), *call("read_file", path="b"), user("no, a")]
    turn = TurnRecord(chat_request(messages))
    written = CallWritten(GeneratedArguments(arguments='{"path":"a"}', attempts=1, adapter=ADAPTER))
    turn.decided.append(Decided(selected(), CallOpened("call_1", "read_file"), written))
    turn.decided.append(Decided(selected("no_such_tool", adapter="base")))
    accuracy.began(turn)
    accuracy.ended(turn)
    value = registry.get_sample_value
    assert value("agentflux_corrected_calls_total", {"toolset": "files"}) == 1
    assert value("agentflux_repeated_calls_total", {"toolset": "files"}) is None
    assert value("agentflux_fallbacks_total", {"reason": "no_adapter"}) == 1
    assert value("agentflux_unknown_tool_total") == 1
    assert value("agentflux_overhead_seconds_count") == 1


def test_a_turn_without_a_decision_counts_nothing() -> None:
    registry = CollectorRegistry()
    Accuracy(GatewayMetrics(registry)).ended(TurnRecord(chat_request([user()])))
    assert registry.get_sample_value("agentflux_overhead_seconds_count") == 0


def test_overhead_is_what_no_engine_was_waited_for() -> None:
    turn = TurnRecord(chat_request([user()]))
    assert turn.overhead_s is None
    decision = selected()
    decision.selection.timings.update(render_s=0.02, vote_s=0.3)
    written = CallWritten(GeneratedArguments(arguments="{}", attempts=1, adapter=ADAPTER, timings={"arguments_s": 0.4}))
    turn.decided.append(Decided(decision, CallOpened("call_1", "read_file"), written))
    turn.timing.seconds.update(queue=5.0, select=0.35, arguments=0.41)
    assert turn.overhead_s == pytest.approx(0.06)
