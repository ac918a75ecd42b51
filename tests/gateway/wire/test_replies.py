"""Replies on the wire: streamed and whole ones say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped
from services.gateway.wire.replies import Reply
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.errors import UpstreamError
from services.shared.contracts.selection import Selection
from services.shared.contracts.usage import Usage

SELECTED = Selected(
    Selection(
        tool="read",
        probabilities={"read": 1},
        margin=1,
        valid_mass=1,
        strategy="exact",
        adapter="b",
        usage=Usage(prompt_tokens=10),
    ),
    None,
)


def test_a_reply_says_which_release_it_is_of() -> None:
    reply = Reply("m", "chatcmpl-1")
    of_release = SELECTED.selection.model_copy(update={"release": 7})
    for event in (Selected(of_release, "files"), *call("{}")[1:]):
        reply.add(event)
    assert reply.body()["system_fingerprint"] == "files@7"


def call(arguments: str, finish: str = "stop") -> list[Event]:
    generated = GeneratedArguments.model_validate(
        {
            "arguments": arguments,
            "attempts": 1,
            "adapter": "b",
            "finish_reason": finish,
            "usage": {"prompt_tokens": 12, "completion_tokens": 5, "cached_tokens": 8},
        }
    )
    return [SELECTED, CallOpened("call_1", "read"), CallWritten(generated)]


def streamed(events: list[Event], *, include_usage: bool = False) -> list[dict[str, Any]]:
    reply = Reply("m", "chatcmpl-1", include_usage=include_usage)
    return [chunk for event in events for chunk in reply.chunks(event)] + list(reply.last_chunks())


def whole(events: list[Event]) -> dict[str, Any]:
    reply = Reply("m", "chatcmpl-1")
    for event in events:
        reply.add(event)
    return reply.body()


def test_a_streamed_call_has_its_id_and_name_once_and_one_finish_reason() -> None:
    choices = [chunk["choices"][0] for chunk in streamed(call('{"path":"a"}'))]
    assert choices[0]["delta"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "read", "arguments": ""}}],
    }
    assert choices[1]["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"path":"a"}'}}]}
    assert [choice["finish_reason"] for choice in choices] == [None, None, "tool_calls"]


@given(st.text())
def test_whole_and_streamed_arguments_are_the_same_bytes(arguments: str) -> None:
    deltas = [choice["delta"] for chunk in streamed(call(arguments)) for choice in chunk["choices"]]
    joined = "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if "tool_calls" in d)
    message = whole(call(arguments))["choices"][0]["message"]
    assert joined == (arguments or "{}") == message["tool_calls"][0]["function"]["arguments"]


def test_usage_is_the_sum_of_both_stages() -> None:
    usage = whole(call("{}"))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (22, 5, 27)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 8


def test_the_usage_chunk_comes_last_and_only_when_asked_for() -> None:
    assert all("usage" not in chunk for chunk in streamed(call("{}")))
    chunks = streamed(call("{}"), include_usage=True)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 27


def test_all_chunks_of_a_reply_have_one_id() -> None:
    assert len({chunk["id"] for chunk in streamed(call("{}"), include_usage=True)}) == 1


def test_arguments_cut_by_the_callers_limit_finish_with_length() -> None:
    assert whole(call('{"pa', "length"))["choices"][0]["finish_reason"] == "length"


def test_a_stopped_turn_is_an_ordinary_answer() -> None:
    choice = whole([Stopped("I stopped.")])["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("I stopped.", "stop")
    assert "tool_calls" not in choice["message"]


def test_the_engines_own_fields_do_not_leak() -> None:
    engine = {
        "id": "cmpl-engine",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "tool_calls": [], "reasoning": "hm"},
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": None,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None},
    }
    body = whole([SELECTED, Answered(engine)])
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi", "refusal": None, "reasoning_content": "hm"},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["usage"]["prompt_tokens"] == 13


def test_a_turn_without_an_end_is_an_error_and_not_an_empty_reply() -> None:
    with pytest.raises(UpstreamError):
        streamed([SELECTED])
    with pytest.raises(UpstreamError):
        whole([AnswerChunk({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]})])
