"""The stream normaliser: every way to cut a message into deltas gives the same message, told the way clients need it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.wire.normaliser import Choice
from services.shared.contracts.errors import UpstreamError

NAMES = st.text(min_size=1, max_size=8)
CALLS = st.lists(
    st.tuples(st.text(min_size=1, max_size=6), NAMES, st.text(max_size=12)), max_size=4, unique_by=lambda call: call[0]
)


def told(*raw: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The clean choices for raw ones, and the message they add up to."""
    choice = Choice(0)
    clean = [piece for each in raw for piece in choice.take(each)]
    return clean, choice.message


def call_deltas(clean: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for piece in clean for entry in piece["delta"].get("tool_calls", [])]


def entry(index: int | None = 0, *, id: str | None = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given_fields = {"index": index, "id": id, "type": "function" if id else None, "function": function}
    return {"delta": {"tool_calls": [{key: value for key, value in given_fields.items() if value is not None}]}}


END = {"delta": {}, "finish_reason": "tool_calls"}


@given(CALLS, st.text(max_size=20), st.data())
def test_however_a_message_is_cut_it_is_the_same_message(
    calls: list[tuple[str, str, str]], text: str, data: st.DataObject
) -> None:
    raw: list[dict[str, Any]] = [{"delta": {"content": part}} for part in cut(text, data)]
    for index, (call_id, name, arguments) in enumerate(calls):
        together = data.draw(st.sampled_from(("id first", "all at once", "id repeated")))
        parts = [arguments] if together == "all at once" else cut(arguments, data)
        if together == "id first":
            raw.append(entry(index, id=call_id))
        for number, part in enumerate(parts or [""]):
            again = number == 0 or together == "id repeated"
            raw.append(entry(index, id=call_id if again else None, name=name if again else None, arguments=part))
    clean, message = told(*raw, {"delta": {}, "finish_reason": "stop"})
    assert (message["content"] or "") == text
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])] == [
        (call_id, name, arguments or "{}") for call_id, name, arguments in calls
    ]
    # What a client adds up from the deltas is that message.
    assert "".join(piece["delta"].get("content") or "" for piece in clean) == text
    for index, (call_id, name, arguments) in enumerate(calls):
        own = [delta for delta in call_deltas(clean) if delta["index"] == index]
        assert own[0] == {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        assert all(set(delta) == {"index", "function"} and set(delta["function"]) == {"arguments"} for delta in own[1:])
        assert "".join(delta["function"]["arguments"] for delta in own) == (arguments or "{}")
    assert [piece["delta"].get("role") for piece in clean] == ["assistant", *[None] * (len(clean) - 1)]
    assert [piece["finish_reason"] for piece in clean] == [*[None] * (len(clean) - 1), "tool_calls" if calls else "stop"]


def cut(text: str, data: st.DataObject) -> list[str]:
    """The text in pieces, some of them empty."""
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def test_a_missing_id_is_made_up_once() -> None:
    clean, message = told(entry(name="read"), entry(arguments='{"a"'), entry(arguments=":1}"), END)
    call = message["tool_calls"][0]
    assert call["id"].startswith("call_")
    assert [delta.get("id") for delta in call_deltas(clean)] == [call["id"], None, None]


def test_calls_that_share_an_upstream_index_get_their_own() -> None:
    clean, _ = told(entry(id="a", name="x", arguments="1"), entry(id="b", name="y", arguments="2"), END)
    assert [delta["index"] for delta in call_deltas(clean)] == [0, 0, 1, 1]


def test_arguments_that_an_engine_sends_as_an_object_become_text() -> None:
    _, message = told(entry(id="a", name="x", arguments={"é": 1}), END)
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"é": 1}


def test_a_call_that_is_never_named_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="without naming"):
        told(entry(id="a", arguments="{}"), END)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_engine_that_gives_up_is_an_error(reason: str) -> None:
    with pytest.raises(UpstreamError, match=reason):
        told({"delta": {"content": "Hal"}, "finish_reason": reason})


# Whatever engines send, and more; most of it is text in the middle of an answer.
TEXTS = st.one_of(st.none(), st.text(max_size=4))
DELTAS = st.one_of(
    st.fixed_dictionaries({"content": st.text(min_size=1, max_size=4)}),
    st.none(),
    st.dictionaries(st.sampled_from(("content", "refusal", "reasoning", "reasoning_content", "role", "odd")), TEXTS, max_size=3),
    st.tuples(st.sampled_from((None, 0, 1)), NAMES, st.text(max_size=4)).map(
        lambda call: entry(call[0], id=call[1], name=call[1], arguments=call[2])["delta"]
    ),
)
RAW = st.fixed_dictionaries(
    {"delta": DELTAS},
    optional={
        "logprobs": st.sampled_from((None, {}, {"content": [{"token": "x"}]})),
        "finish_reason": st.sampled_from((None, None, None, "stop", "length", "tool_calls", "abort")),
    },
)


def all_told(choice: Choice, take: Callable[[Any], Iterable[Any]], raw: list[Any]) -> tuple[Any, ...]:
    clean: list[Any] = []
    failure = ""
    try:
        for each in raw:
            for piece in take(each):
                # One by one: what came before an error counts.
                clean.append(piece)
    except UpstreamError as error:
        failure = error.message
    return clean, failure, choice.message, choice.logprobs, choice.finish_reason


@given(st.lists(RAW, max_size=8))
def test_the_short_way_for_what_is_frequent_tells_the_same(raw: list[Any]) -> None:
    short, long = Choice(0), Choice(0)
    assert all_told(short, short.take, raw) == all_told(long, long.take_any, raw)


def test_nothing_follows_the_finish_reason() -> None:
    stop = {"delta": {"content": "Hi"}, "finish_reason": "stop"}
    clean, _ = told(stop, {"delta": {}, "finish_reason": "stop"}, {"delta": {"content": ""}})
    assert [piece["finish_reason"] for piece in clean] == [None, "stop"]
    with pytest.raises(UpstreamError, match="went on"):
        told(stop, {"delta": {"content": "!"}})


def test_a_limit_stays_a_limit_and_cut_arguments_stay_cut() -> None:
    clean, message = told(entry(id="a", name="x"), {"delta": {}, "finish_reason": "length"})
    assert clean[-1]["finish_reason"] == "length"
    assert message["tool_calls"][0]["function"]["arguments"] == ""


def test_logprobs_of_all_pieces_add_up() -> None:
    choice = Choice(0)
    raw = [{"delta": {"content": word}, "logprobs": {"content": [{"token": word}]}} for word in ("It", " is")]
    clean = [piece for each in [*raw, {"delta": {}, "finish_reason": "stop"}] for piece in choice.take(each)]
    assert [piece["logprobs"] for piece in clean] == [raw[0]["logprobs"], raw[1]["logprobs"], None]
    assert choice.logprobs == {"content": [{"token": "It"}, {"token": " is"}], "refusal": None}


def test_reasoning_has_the_name_that_clients_read() -> None:
    clean, message = told({"delta": {"reasoning": "hm"}}, {"delta": {"content": "Hi"}, "finish_reason": "stop"})
    assert clean[0]["delta"] == {"role": "assistant", "reasoning_content": "hm"}
    assert (message["reasoning_content"], message["content"]) == ("hm", "Hi")
