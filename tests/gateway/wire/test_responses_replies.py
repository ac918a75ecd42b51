"""Response objects and their streams: both say the same, and both are what OpenAI's own types say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped
from services.gateway.records.stored import History
from services.gateway.wire.responses_replies import ResponseReply
from services.gateway.wire.responses_requests import ResponsesBody, understood_response
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.errors import ArgumentsInvalid, ContextLengthExceeded, Unavailable, UpstreamError
from services.shared.contracts.selection import Selection
from services.shared.contracts.usage import Usage
from tests.fakes import tool

RESPONSE_ID = "resp_" + "0123456789abcdef" * 2
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SELECTED = Selected(
    Selection(
        tool="read", probabilities={"read": 1}, margin=1, valid_mass=1, strategy="exact", adapter="b",
        usage=Usage(prompt_tokens=10),
    ),
    None,
)  # fmt: skip


def reply(**fields: Any) -> ResponseReply:
    flat = {"type": "function", "strict": True, **tool("read", path={"type": "string"}).model_dump()}
    body = ResponsesBody.model_validate({"model": "m", "input": "hi", "tools": [flat], **fields})
    request = understood_response(body, history=History(), referenced={}, default_tools=[], session=None)
    return ResponseReply(request, RESPONSE_ID)


def calls(*arguments: str, finish: str = "stop") -> list[Event]:
    events: list[Event] = []
    for number, text in enumerate(arguments):
        generated = GeneratedArguments.model_validate(
            {
                "arguments": text,
                "attempts": 1,
                "adapter": "b",
                "finish_reason": finish if number == len(arguments) - 1 else "stop",
                "usage": {"prompt_tokens": 12, "completion_tokens": 5, "cached_tokens": 8},
            }
        )
        events += [SELECTED, CallOpened(f"call_{number}", "read"), CallWritten(generated)]
    return events


def answer(*pieces: str, finish: str = "stop", whole: bool = False, thoughts: Sequence[str] = ()) -> list[Event]:
    """The same answer as the engine streams it, and as it says it at once."""
    usage = {"prompt_tokens": 20, "completion_tokens": 4}
    if whole:
        message = {"role": "assistant", "content": "".join(pieces), "reasoning": "".join(thoughts) or None}
        return [SELECTED, Answered({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"reasoning": thought} for thought in thoughts)]
    deltas += [{"content": piece} for piece in pieces]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return [SELECTED, *map(AnswerChunk, [*chunks, end, {"choices": [], "usage": usage}])]


def streamed(events: list[Event], **fields: Any) -> list[dict[str, Any]]:
    one = reply(stream=True, **fields)
    said = [*one.opening(), *(wire for event in events for wire in one.events(event)), *one.closing(), one.last()]
    for wire in said:
        STREAM_EVENT.validate_python(wire)
    return said


def whole(events: list[Event], **fields: Any) -> dict[str, Any]:
    one = reply(**fields)
    for event in events:
        list(one.events(event))
    list(one.closing())
    Response.model_validate(one.response)
    return one.response


def timeless(response: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in response.items() if key not in ("created_at", "completed_at")}


def put_together(said: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a client that reads only deltas has: per output item its kind and its text."""
    items: dict[str, tuple[str, str]] = {}
    for wire in said:
        if wire["type"] == "response.output_item.added":
            items[wire["item"]["id"]] = (wire["item"]["type"], "")
        elif wire["type"].endswith(".delta"):
            kind, text = items[wire["item_id"]]
            items[wire["item_id"]] = (kind, text + wire["delta"])
    return list(items.values())


def texts(output: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (item["type"], item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]) for item in output
    ]


FINISH = st.sampled_from(["stop", "length"])
CALLS = st.builds(lambda texts, finish: calls(*texts, finish=finish), st.lists(st.text(), min_size=1, max_size=4), FINISH)
TURNS = st.one_of(
    CALLS.map(lambda events: (events, events)),
    st.builds(
        lambda pieces, finish, thoughts: (
            answer(*pieces, finish=finish, thoughts=thoughts),
            answer(*pieces, finish=finish, thoughts=thoughts, whole=True),
        ),
        st.lists(st.text(), max_size=6),
        FINISH,
        st.lists(st.text(), max_size=3),
    ),
    st.text(min_size=1).map(lambda text: ([Stopped(text)], [Stopped(text)])),
)


@given(TURNS)
def test_streamed_and_whole_replies_say_the_same(turn: tuple[list[Event], list[Event]]) -> None:
    in_pieces, at_once = turn
    said, response = streamed(in_pieces), whole(at_once)
    assert timeless(said[-1]["response"]) == timeless(response)
    assert said[-1]["type"] == f"response.{response['status']}"
    assert [wire["item"] for wire in said if wire["type"] == "response.output_item.done"] == response["output"]
    assert put_together(said) == texts(response["output"])


@given(TURNS)
def test_sequence_numbers_rise_by_one_and_items_open_and_close_in_order(turn: tuple[list[Event], list[Event]]) -> None:
    said = streamed(turn[0])
    assert [wire["sequence_number"] for wire in said] == list(range(len(said)))
    assert [wire["type"] for wire in said[:2]] == ["response.created", "response.in_progress"]
    lives = [(wire["type"].rpartition(".")[2], wire["output_index"]) for wire in said if "output_item" in wire["type"]]
    assert lives == [(step, index) for index in range(len(lives) // 2) for step in ("added", "done")]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_a_model_thinks_is_an_item_before_its_answer(name: str) -> None:
    thinking = [{"role": "assistant", "content": ""}, {name: "Hm, "}, {name: "yes."}, {"content": "Yes."}]
    chunks = [AnswerChunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in thinking]
    end = AnswerChunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    said = streamed([SELECTED, *chunks, end])
    assert [wire["type"].removeprefix("response.") for wire in said[2:10]] == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done", "output_item.added",
    ]  # fmt: skip
    thought, message = said[-1]["response"]["output"]
    assert thought == {
        "id": f"rs_{RESPONSE_ID[5:]}0001",
        "status": "completed",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm, yes."}],
        "encrypted_content": None,
    }
    assert (message["type"], message["content"][0]["text"]) == ("message", "Yes.")


def test_a_thought_that_a_limit_cuts_is_incomplete() -> None:
    [thought] = whole(answer(finish="length", whole=True, thoughts=["Hm"]))["output"]
    assert (thought["type"], thought["status"]) == ("reasoning", "incomplete")


def test_a_call_is_one_item_with_its_own_id_and_the_id_that_its_result_names() -> None:
    said = streamed(calls('{"path":"a"}'))
    assert [wire["type"].removeprefix("response.") for wire in said] == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert said[2]["item"] == {
        "id": f"fc_{RESPONSE_ID[5:]}0001",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "call_0",
        "name": "read",
        "arguments": "",
    }
    assert said[-1]["response"]["output"] == [{**said[2]["item"], "status": "completed", "arguments": '{"path":"a"}'}]


def test_parallel_calls_are_items_in_the_order_in_which_they_were_made() -> None:
    response = whole(calls("{}", '{"path":"b"}'))
    assert [(item["call_id"], item["arguments"]) for item in response["output"]] == [("call_0", "{}"), ("call_1", '{"path":"b"}')]
    assert len({item["id"] for item in response["output"]}) == 2


def test_an_answer_is_one_message_with_one_part_of_text() -> None:
    said = streamed(answer("It ", "is."))
    assert [wire["type"].removeprefix("response.") for wire in said] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    part = {"type": "output_text", "text": "It is.", "annotations": [], "logprobs": []}
    assert said[-1]["response"]["output"] == [
        {"id": f"msg_{RESPONSE_ID[5:]}0001", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    ]


def test_usage_is_the_sum_of_the_stages_with_its_details() -> None:
    assert whole(calls("{}", "{}"))["usage"] == {
        "input_tokens": 44,
        "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 54,
    }
    assert whole(answer("Hi"))["usage"]["total_tokens"] == 34


@pytest.mark.parametrize("events", [calls('{"pa', finish="length"), answer("It i", finish="length")], ids=["call", "answer"])
def test_what_the_callers_limit_cut_is_incomplete_and_says_why(events: list[Event]) -> None:
    response = whole(events)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert streamed(events)[-1]["type"] == "response.incomplete"


def test_an_empty_answer_is_an_empty_message_and_not_nothing() -> None:
    assert texts(whole(answer())["output"]) == [("message", "")]


def test_logprobs_come_with_the_text_they_belong_to() -> None:
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [entry]}, "finish_reason": "stop"}
    said = streamed([AnswerChunk({"choices": [choice]})])
    assert next(wire for wire in said if wire["type"] == "response.output_text.delta")["logprobs"] == [entry]
    assert said[-1]["response"]["output"][0]["content"][0]["logprobs"] == [entry]


def test_a_turn_without_an_end_is_an_error_and_not_an_empty_reply() -> None:
    with pytest.raises(UpstreamError):
        whole([SELECTED])
    with pytest.raises(UpstreamError):
        streamed([AnswerChunk({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]})])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamError("odd"), "server_error"),
        (Unavailable("gone"), "server_error"),
        (ArgumentsInvalid("twice"), "invalid_prompt"),
        # Not among the documented codes, but what OpenAI sends and Codex waits for.
        (ContextLengthExceeded("too long"), "context_length_exceeded"),
    ],
)
def test_a_failure_in_the_middle_is_an_error_and_a_failed_response(error: Any, code: str) -> None:
    one = reply(stream=True)
    said = [*one.opening(), *one.events(SELECTED), *one.events(CallOpened("call_0", "read")), *one.failing(error)]
    assert [wire["type"] for wire in said[-2:]] == ["error", "response.failed"]
    assert [wire["sequence_number"] for wire in said] == list(range(len(said)))
    assert said[-2] == {
        "type": "error", "sequence_number": 3, "code": error.code, "message": error.message, "param": None, **error.envelope(),
    }  # fmt: skip
    STREAM_EVENT.validate_python(said[-2])
    failed = said[-1]["response"]
    assert (failed["status"], failed["output"], failed["error"]) == ("failed", [], {"code": code, "message": error.message})
    if code != "context_length_exceeded":
        STREAM_EVENT.validate_python(said[-1])
