"""What chat requests are understood, and which are refused by which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.loops import made_calls
from services.gateway.routing import PassThrough, ToolRoute, route
from services.gateway.wire.requests import CONTINUING, ChatBody, ChatRequest, understood
from services.shared.contracts.errors import AgentFluxError, InvalidRequest, InvalidToolSchema
from tests.fakes import tool

WEATHER = tool("get_weather", city={"type": "string"}).openai()
TIME = {"type": "function", "function": {"name": "get_time"}}


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], **fields}
    return understood(ChatBody.model_validate(body), default_tools=[], session=None)


def refusal(**fields: Any) -> AgentFluxError:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolRoute(["get_weather", "get_time"], may_answer=True)),
        ("auto", ToolRoute(["get_weather", "get_time"], may_answer=True)),
        ("none", PassThrough()),
        ("required", ToolRoute(["get_weather", "get_time"], may_answer=False)),
        ({"type": "function", "function": {"name": "get_time"}}, ToolRoute(["get_time"], may_answer=False)),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TIME]}},
            ToolRoute(["get_time"], may_answer=True),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TIME]}},
            ToolRoute(["get_time"], may_answer=False),
        ),
    ],
)
def test_tool_choice_decides_what_may_win(choice: Any, expected: object) -> None:
    assert route(parse(tools=[WEATHER, TIME], tool_choice=choice)) == expected


def test_a_request_without_tools_goes_to_the_base_model() -> None:
    assert route(parse()) == PassThrough()


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": "required", "tools": []}, "tool_choice", "no tools"),
        ({"tool_choice": "sometimes", "tools": [TIME]}, "tool_choice", "'sometimes'"),
        ({"tool_choice": {"type": "function", "function": {"name": "rm"}}, "tools": [TIME]}, "tool_choice", "'rm'"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [TIME]}, "tool_choice", "mode"),
        ({"tools": [TIME, TIME]}, "tools.1", "get_time"),
        ({"tools": [{"type": "web_search"}]}, "tools.0", "web_search"),
        ({"tools": ["get_time"]}, "tools.0", "get_time"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0", "name"),
        ({"tools": [{"type": "function", "function": {"name": f"t{i}"}} for i in range(129)]}, "tools", "at most 128"),
        ({"tools": [TIME], "n": 2}, "n", "n times"),
        ({"functions": [{"name": "f"}]}, "functions", "tools"),
        ({"messages": ["hi"]}, "messages.0", "object"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role", "robot"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0",
            "image_url",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "call_9", "content": "x"}]}, "messages.0.tool_call_id", "call_9"),
    ],
)
def test_a_refusal_names_the_field_and_what_it_holds(fields: dict[str, Any], param: str, says: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert says in error.message


def test_a_schema_that_is_none_is_refused_by_the_name_of_its_tool() -> None:
    broken = {
        "type": "function",
        "function": {"name": "broken", "parameters": {"type": "object", "properties": {"a": {"type": "x"}}}},
    }
    error = refusal(tools=[TIME, broken])
    assert isinstance(error, InvalidToolSchema)
    assert error.param == "tools.1.function.parameters"
    assert "'broken'" in error.message


def test_conversations_are_brought_to_one_shape() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    request = parse(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "done"}]},
        ]
    )
    assert [(m["role"], m["content"]) for m in request.messages] == [
        ("system", "Be brief."),
        ("user", "one\ntwo"),
        ("assistant", None),
        ("tool", "done"),
    ]
    assert request.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


@pytest.mark.parametrize("arguments", ['{"path": "a', "[1]", "", None, {"a": 1}])
def test_arguments_in_the_history_are_always_text_of_an_object(arguments: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    request = parse(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert isinstance(json.loads(request.messages[0]["tool_calls"][0]["function"]["arguments"]), dict)


def test_the_newer_token_limit_wins_and_unknown_fields_are_left_out() -> None:
    request = parse(max_tokens=5, max_completion_tokens=9, stop=["x"], service_tier="auto", frobnicate=True)
    assert request.relayed == {"max_tokens": 9, "stop": ["x"]}


def test_a_toolset_model_brings_its_own_tools() -> None:
    body = ChatBody.model_validate({"model": "files", "messages": [{"role": "user", "content": "hi"}]})
    request = understood(body, default_tools=[tool("read_file")], session=None)
    assert route(request) == ToolRoute(["read_file"], may_answer=True)


def test_half_an_emoji_is_replaced_and_everything_else_is_kept() -> None:
    request = parse(messages=[{"role": "user", "content": "grüß 😀 \ud83d"}], tools=[TIME])
    assert request.messages[0]["content"] == "grüß 😀 \ufffd"


def test_arguments_nested_without_end_do_not_stop_the_loop_check() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "[" * 100_000}}
    request = parse(
        messages=[{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "x"}]
    )
    assert len(made_calls(request.messages)[0].call_key) == 64


@pytest.mark.parametrize("strict", [True, False, None, "maybe"])
def test_strict_may_say_anything_because_every_schema_is_enforced(strict: Any) -> None:
    sent = {"type": "function", "function": {"name": "f", "strict": strict}}
    assert parse(tools=[sent]).tools[0].name == "f"


def test_a_top_p_of_nothing_is_the_least_that_engines_take() -> None:
    assert 0 < parse(top_p=0).relayed["top_p"] < 0.001
    assert parse(top_p=0.5).relayed["top_p"] == parse(top_p=0.5).top_p == 0.5


@pytest.mark.parametrize(
    ("last", "fields", "goes_on"),
    [
        ({"role": "assistant", "content": "The answer is"}, {}, True),
        ({"role": "assistant", "content": "The answer is"}, {"tools": [TIME], "tool_choice": "none"}, True),
        ({"role": "assistant", "content": "The answer is"}, {"tools": [TIME]}, False),
        ({"role": "assistant", "content": " "}, {}, False),
        ({"role": "assistant", "content": "I look.", "tool_calls": [{"id": "c1", "function": {"name": "f"}}]}, {}, False),
        ({"role": "user", "content": "The answer is"}, {}, False),
    ],
)
def test_an_answer_goes_on_where_the_assistant_stopped_unless_tools_may_be_called(
    last: dict[str, Any], fields: dict[str, Any], goes_on: bool
) -> None:
    request = parse(messages=[{"role": "user", "content": "hi"}, last], **fields)
    assert (request.relayed == CONTINUING) is goes_on
