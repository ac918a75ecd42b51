"""Replies on Anthropic's wire: streamed and whole ones say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped
from services.gateway.wire.messages_replies import MessageReply, error_body
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.errors import ArgumentsInvalid, DeadlineExceeded, EngineUnavailable, ModelNotFound, UpstreamError
from services.shared.contracts.selection import Selection
from services.shared.contracts.usage import Usage

SELECTED = Selected(
    Selection(
        tool="read", probabilities={"read": 1}, margin=1, valid_mass=1, strategy="exact", adapter="b",
        usage=Usage(prompt_tokens=10, cached_tokens=4),
    ),
    None,
)  # fmt: skip


def call(arguments: str, number: int = 1, finish: str = "stop") -> list[Event]:
    generated = GeneratedArguments.model_validate(
        {
            "arguments": arguments, "attempts": 1, "adapter": "b", "finish_reason": finish,
            "usage": {"prompt_tokens": 12, "completion_tokens": 5, "cached_tokens": 8},
        }
    )  # fmt: skip
    return [SELECTED, CallOpened(f"call_{number}", "read"), CallWritten(generated)]


def words(*texts: str, finish: str = "stop", stopped_at: str | int | None = None) -> list[Event]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    end = {"index": 0, "delta": {}, "finish_reason": finish, "stop_reason": stopped_at}
    usage = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}
    return [*(AnswerChunk({"choices": [choice]}) for choice in [*choices, end]), AnswerChunk(usage)]


def streamed(events: list[Event]) -> list[dict[str, Any]]:
    reply = MessageReply("m", "0" * 32)
    return [told for event in events for told in reply.events(event)] + list(reply.last_events())


def whole(events: list[Event]) -> dict[str, Any]:
    reply = MessageReply("m", "0" * 32)
    for event in events:
        reply.add(event)
    return reply.body()


def added_up(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of a stream, by the rules of Anthropic's documentation."""
    message = json.loads(json.dumps(told[0]["message"]))
    arguments: dict[int, str] = {}
    for event in told[1:]:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                delta, block = event["delta"], message["content"][event["index"]]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                else:
                    arguments[event["index"]] = arguments.get(event["index"], "") + delta["partial_json"]
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return message


def test_a_streamed_call_has_the_events_of_a_tool_use():
    told = streamed(call('{"path":"a"}'))
    assert [event["type"] for event in told] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert told[0]["message"]["id"] == "msg_" + "0" * 32
    assert told[0]["message"]["content"] == []
    assert told[1] == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "call_1", "name": "read", "input": {}},
    }
    assert told[2]["delta"] == {"type": "input_json_delta", "partial_json": '{"path":"a"}'}
    assert told[4]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}


def test_several_calls_are_several_blocks():
    told = streamed([*call('{"path":"a"}', 1), *call('{"path":"b"}', 2)])
    assert [event["index"] for event in told if event["type"].startswith("content_block")] == [0, 0, 0, 1, 1, 1]
    assert [block["input"] for block in whole([*call('{"path":"a"}', 1), *call('{"path":"b"}', 2)])["content"]] == [
        {"path": "a"},
        {"path": "b"},
    ]


def test_an_answer_has_one_block_of_text():
    body = whole(words("It is", " done."))
    assert body["content"] == [{"type": "text", "text": "It is done."}]
    assert (body["stop_reason"], body["role"], body["type"], body["model"]) == ("end_turn", "assistant", "message", "m")


@pytest.mark.parametrize(
    ("events", "reason", "sequence"),
    [
        (words("a", finish="length"), "max_tokens", None),
        (words("a", stopped_at="END"), "stop_sequence", "END"),
        (words("a", stopped_at=151645), "end_turn", None),
        (words(), "end_turn", None),
        (words("a", finish="content_filter"), "refusal", None),
        (call("{}", finish="length"), "max_tokens", None),
        ([Stopped("I stopped.")], "end_turn", None),
    ],
)
def test_why_a_message_ended(events, reason, sequence):
    assert (whole(events)["stop_reason"], whole(events)["stop_sequence"]) == (reason, sequence)


def test_a_whole_answer_of_the_engine_says_at_what_it_stopped():
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop", "stop_reason": "END"}
    body = whole([Answered({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})])
    assert (body["stop_reason"], body["stop_sequence"], body["content"][0]["text"]) == ("stop_sequence", "END", "a")


def test_usage_is_the_sum_of_both_stages_and_cached_tokens_count_apart():
    assert whole(call("{}"))["usage"] == {
        "input_tokens": 10, "cache_read_input_tokens": 12, "cache_creation_input_tokens": 0, "output_tokens": 5,
    }  # fmt: skip


def test_arguments_that_were_cut_keep_what_came_whole():
    (block,) = whole(call('{"path":"a","text":"hal', finish="length"))["content"]
    assert block["input"] == {"path": "a"}
    assert whole(call("", finish="length"))["content"][0]["input"] == {}


def test_arguments_with_half_an_emoji_are_kept():
    assert whole(call('{"path":"\\ud83d"}'))["content"][0]["input"] == {"path": "\ud83d"}


def test_what_a_model_thinks_is_left_out():
    thought = AnswerChunk({"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None}]})
    assert whole([thought, *words("a")])["content"] == [{"type": "text", "text": "a"}]


TURNS = st.one_of(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers(), max_size=3), min_size=1, max_size=4).map(
        lambda inputs: [event for number, each in enumerate(inputs) for event in call(json.dumps(each), number)]
    ),
    st.builds(lambda texts, finish: words(*texts, finish=finish), st.lists(st.text()), st.sampled_from(["stop", "length"])),
    st.text(min_size=1).map(lambda text: [Stopped(text)]),
)


@given(TURNS)
def test_a_stream_adds_up_to_the_whole_message(events):
    told = streamed(events)
    assert added_up(told) == whole(events)


@given(TURNS)
def test_every_block_is_opened_and_closed_once_and_in_order(events):
    told = [event for event in streamed(events) if event["type"].startswith("content_block")]
    opened = None
    for event in told:
        kind = event["type"].removeprefix("content_block_")
        assert (opened is None) == (kind == "start")
        assert opened is None or event["index"] == opened
        opened = None if kind == "stop" else event["index"]
    assert opened is None


def test_a_turn_without_an_end_is_an_error_and_not_an_empty_message():
    for events in ([SELECTED], words("a")[:2]):
        with pytest.raises(UpstreamError):
            streamed(events)
        with pytest.raises(UpstreamError):
            whole(events)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("x"), "not_found_error"),
        (ArgumentsInvalid("x"), "invalid_request_error"),
        (EngineUnavailable("x"), "overloaded_error"),
        (DeadlineExceeded("x"), "timeout_error"),
        (UpstreamError("x"), "api_error"),
    ],
)
def test_errors_have_anthropics_types_and_our_code(error, kind):
    assert error_body(error.envelope(), error.status, "req") == {
        "type": "error",
        "error": {"type": kind, "message": "x", "details": {"error_code": error.code}},
        "request_id": "req",
    }
