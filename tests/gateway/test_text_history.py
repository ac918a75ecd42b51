"""Calls and results that clients write as plain text."""

from __future__ import annotations

import json

import pytest

from services.gateway.failures import failing
from services.gateway.loops import made_calls, own_standings, since_the_user_spoke
from services.gateway.text_history import written_calls, written_result
from services.shared.contracts.calls import Ladder
from services.shared.contracts.messages import normalised
from services.shared.contracts.tools import JsonObject


def calling(call_id: str = "call_1", name: str = "read_file", **arguments: object) -> str:
    """As smolagents writes it: a Python literal, single quotes and all."""
    return "Calling tools:\n" + str([{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}])


def text_history(*steps: tuple[str, str]) -> list[JsonObject]:
    messages: list[JsonObject] = [{"role": "user", "content": [{"type": "text", "text": "New task:\nRead."}]}]
    for called, result in steps:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": called}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": result}]})
    return normalised(messages)


def test_a_python_literal_is_read_as_calls() -> None:
    [call] = written_calls("I look.\n" + calling(path="it's", deep=True, none=None))
    assert call["id"] == "call_1"
    assert call["function"]["name"] == "read_file"
    assert json.loads(call["function"]["arguments"]) == {"path": "it's", "deep": True, "none": None}


@pytest.mark.parametrize(
    "text",
    [
        "", "Calling tools: none", "Calling tools:\n[", "Calling tools:\n[1]", "Calling tools:\n[{'id': 1}]",
        "Calling tools:\n[f()]",
        "Calling tools:\n" + "[" * 5000 + "]" * 5000, "Calling tools:\n[" + "-" * 9000 + "1]", "Calling tools:\n[{'a': 1, **b}]",
        "Calling tools:\n[{'id': 'x', 'function': {'name': 1, 'arguments': {}}}]", "Calling tools:\n[" + "1," * 500_000 + "]",
        "Calling tools:\n[{'id': 'x', 'function': {'name': 'f', 'arguments': {1, 2}}}]", "Calling tools:\n[{1: 2}['x']]",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_text(text: str) -> None:
    assert written_calls(text) == []


def test_results_are_told_from_what_the_user_says() -> None:
    assert written_result("Observation:\nENOENT") == "ENOENT"
    assert written_result("Call id: call_7\nError:\nquota") == written_result("Error:\nquota") == "Error:\nquota"
    assert written_result("Please read it.") is None


def test_the_ladder_counts_calls_written_as_text() -> None:
    calls = made_calls(text_history(*[(calling(f"call_{i}", path="a"), "Observation:\nsame") for i in range(5)]))
    assert [standing.step for standing in own_standings(calls, Ladder())] == ["withdraw"]


def test_failures_written_as_text_are_failures_whatever_the_call_is_called() -> None:
    messages = text_history(*[(calling(f"call_{i}", path="a"), f"Call id: call_{i}\nError:\nquota\nNow") for i in range(2)])
    assert [call.times for call in failing(made_calls(since_the_user_spoke(messages)), 2).values()] == [2]


def test_an_answer_in_text_still_ends_the_turn() -> None:
    messages = text_history((calling(path="a"), "Observation:\nx"), ("It says x.", "And b?"))
    assert made_calls(messages) == []


def test_an_observation_that_answers_no_call_is_none() -> None:
    assert made_calls(text_history(("I wonder.", "Observation:\nnothing"))) == []
