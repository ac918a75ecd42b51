"""How loops are found in a request's own history, and what the ladder demands."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.loops import conversation_of, guard, made_calls, new_call_id, own_standings
from services.shared.contracts.calls import Ladder
from services.shared.contracts.messages import normalised
from services.shared.contracts.tools import JsonObject

LADDER = Ladder()


def history(*steps: tuple[str, str, str]) -> list[JsonObject]:
    """A turn of (tool, arguments, result) steps, as a client would send it."""
    messages: list[JsonObject] = [{"role": "user", "content": "Go."}]
    for index, (name, arguments, result) in enumerate(steps):
        call = {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{index}", "content": result})
    return normalised(messages)


def steps_taken(*steps: tuple[str, str, str]) -> list[str]:
    return [standing.step for standing in own_standings(made_calls(history(*steps)), LADDER)]


READ = ("read_file", '{"path": "a"}', "ENOENT")


def test_the_ladder_climbs_with_identical_calls_and_results() -> None:
    assert steps_taken(*[READ] * 2) == []
    assert steps_taken(*[READ] * 3) == ["warn"]
    assert steps_taken(*[READ] * 5) == ["withdraw"]
    assert steps_taken(*[READ] * 10) == ["block"]


def test_spelling_does_not_hide_a_repeat() -> None:
    assert steps_taken(READ, ("read_file", '{"path":"a"}', "ENOENT"), ("read_file", '{ "path" : "a" }', "ENOENT")) == ["warn"]


def test_alternating_loops_are_seen() -> None:
    other = ("list_directory", "{}", "empty")
    assert steps_taken(*[READ, other] * 3) == ["warn", "warn"]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=30, unique=True))
def test_polling_with_changing_results_is_no_loop(results: list[str]) -> None:
    assert steps_taken(*[("status", "{}", result) for result in results]) == []


@pytest.mark.parametrize("period", [1, 2, 3, 4])
def test_every_cycle_of_up_to_four_calls_is_seen_by_the_tenth(period: int) -> None:
    cycle = [(f"tool_{i}", "{}", "same") for i in range(period)]
    taken = [steps_taken(*[cycle[i % period] for i in range(calls)]) for calls in range(1, 11)]
    assert taken[-1] != [], "seen by the tenth call"
    assert all(steps == [] for steps in taken[: period + 1]), "going round once is no loop"


def test_a_cycle_that_brings_something_new_is_none() -> None:
    look = ("list_directory", "{}", "a")
    steps = [step for i in range(12) for step in (look, ("status", "{}", f"{i} %"), READ if i == 0 else ("t", "{}", str(i)))]
    assert [s for s in own_standings(made_calls(history(*steps)), LADDER) if s.tool != "list_directory"] == []


def test_a_thousand_polling_traces_are_no_loops() -> None:
    dice = random.Random(0)
    for _ in range(1000):
        polled = [(f"status_{i % dice.randint(1, 4)}", "{}", f"{i} of 30, {dice.random()}") for i in range(30)]
        assert steps_taken(*polled) == []


def test_an_answer_ends_the_turn() -> None:
    messages = [*history(*[READ] * 9), *normalised([{"role": "assistant", "content": "It is not there."}])]
    assert made_calls(messages) == []


def test_withdrawn_tools_and_blocked_calls_are_told_apart() -> None:
    loops = guard(own_standings(made_calls(history(*[READ] * 5)), LADDER))
    assert (loops.withdrawn, loops.blocked) == ({"read_file"}, [])
    assert loops.note is not None
    assert "read_file was called 5 times" in loops.note["content"]


def test_strangers_with_the_same_words_are_different_conversations() -> None:
    messages = history(READ)
    other = history(READ)
    messages[1]["tool_calls"][0]["id"], other[1]["tool_calls"][0]["id"] = new_call_id(), new_call_id()
    assert conversation_of(messages, None, "") != conversation_of(other, None, "")
    assert conversation_of(messages, "s1", "") == conversation_of(other, "s1", "")
    assert conversation_of(messages, "s1", "ann") != conversation_of(messages, "s1", "bob")
    assert conversation_of(messages[:1], None, "") is None


def test_call_ids_that_are_not_ours_tell_no_conversation_apart() -> None:
    assert conversation_of(history(READ), None, "") is None
