"""Responses requests as agents send them: the turn they ask for, and what is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import ValidationError

from services.gateway.records.stored import History
from services.gateway.wire.requests import ToolChoice
from services.gateway.wire.responses_requests import ResponsesBody, ResponsesRequest, understood_response
from services.shared.contracts.errors import InvalidRequest, InvalidToolSchema, NotFound
from tests.fakes import tool

RESPONSE_ID = "resp_" + "0123456789abcdef" * 2
READ = {"type": "function", **tool("read", path={"type": "string"}).model_dump()}
WRITE = {"type": "function", **tool("write", path={"type": "string"}).model_dump()}
NAMESPACE = {"type": "namespace", "name": "repository", "tools": [READ]}
WEB_SEARCH = {"type": "web_search"}
CUSTOM = {"type": "custom", "name": ["apply_patch"]}

WORDS = [
    "type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "parameters", "tools", "mode", "format",
    "schema", "message", "function_call", "function_call_output", "item_reference", "reasoning", "input_text", "refusal", "user",
    "assistant", "function", "allowed_tools", "auto", "required", "json_schema", "object", "properties", "web_search",
]  # fmt: skip
WORD = st.sampled_from(WORDS)
# JSON that looks like requests, and is none.
NEARLY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORD | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORD, inner, max_size=5),
    max_leaves=12,
)


def request(
    *, history: History | None = None, unknown_tools: Any = "ignore", strict_fields: bool = False, **fields: Any
) -> ResponsesRequest:
    return understood_response(
        ResponsesBody.model_validate({"model": "m", "input": "hi", **fields}),
        history=history or History(),
        referenced={},
        default_tools=[],
        session=None,
        strict_fields=strict_fields,
        unknown_tools=unknown_tools,
    )


def test_instructions_are_the_first_message_and_stored_history_comes_after_them() -> None:
    before = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "earlier"}]}]
    asked = request(instructions="Be brief.", history=History(items=before, chain=[RESPONSE_ID]))
    assert [(each["role"], each["content"]) for each in asked.chat.messages] == [
        ("system", "Be brief."), ("user", "earlier"), ("user", "hi"),
    ]  # fmt: skip
    assert len(asked.input) == 1


def test_flat_tools_become_tools_of_the_turn() -> None:
    asked = request(tools=[{**READ, "strict": True}, WRITE])
    assert [each.name for each in asked.chat.tools] == ["read", "write"]
    assert asked.chat.tools[0].parameters == READ["parameters"]
    assert [(each["name"], each["strict"]) for each in asked.echo["tools"]] == [("read", True), ("write", None)]


def test_tools_that_are_no_functions_are_left_out_or_refused_as_the_setting_says() -> None:
    asked = request(tools=[NAMESPACE, CUSTOM, READ, WEB_SEARCH])
    assert [each.name for each in asked.chat.tools] == ["read"]
    with pytest.raises(InvalidRequest) as refused:
        request(tools=[READ, NAMESPACE], unknown_tools="refuse")
    assert refused.value.param == "tools.1"
    assert "'namespace'" in refused.value.message


def test_a_choice_that_demands_a_tool_needs_one_that_can_be_called() -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(tools=[WEB_SEARCH], tool_choice="required")
    assert refused.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "understood"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice(may_call=False)),
        ("required", ToolChoice(may_answer=False)),
        ({"type": "function", "name": "read"}, ToolChoice(may_answer=False, names=("read",), forced=True)),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "write"}]},
            ToolChoice(names=("write",)),
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "read"}, WEB_SEARCH]},
            ToolChoice(may_answer=False, names=("read",)),
        ),
    ],
)
def test_tool_choice_in_every_form(choice: Any, understood: ToolChoice) -> None:
    assert request(tools=[READ, WRITE], tool_choice=choice).chat.choice == understood


def test_text_format_is_the_response_format_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "name": "found", "schema": schema, "strict": True}
    assert request(text={"format": wanted}).chat.relayed["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "found", "schema": schema, "strict": True},
    }
    assert request(text={"format": {"type": "json_object"}}).chat.relayed["response_format"] == {"type": "json_object"}
    assert "response_format" not in request(text={"format": {"type": "text"}, "verbosity": "low"}).chat.relayed


def test_limits_sampling_and_session_are_those_of_the_turn() -> None:
    asked = request(max_output_tokens=16, temperature=0, top_p=0.5, prompt_cache_key="thread", safety_identifier="someone")
    assert asked.chat.relayed == {"max_tokens": 16, "temperature": 0, "top_p": 0.5}
    assert (asked.chat.session, asked.chat.user) == ("thread", "someone")


def test_logprobs_are_asked_for_by_include() -> None:
    asked = request(include=["message.output_text.logprobs", "reasoning.encrypted_content"], top_logprobs=2)
    assert asked.chat.relayed == {"logprobs": True, "top_logprobs": 2}


def test_a_request_is_stored_and_calls_once_unless_it_says_otherwise() -> None:
    assert (request().store, request().chat.parallel) == (True, False)
    asked = request(store=False, parallel_tool_calls=True)
    assert (asked.store, asked.chat.parallel, asked.echo["store"], asked.echo["parallel_tool_calls"]) == (
        False,
        True,
        False,
        True,
    )


def test_the_response_repeats_what_openai_repeats() -> None:
    fields = {
        "instructions": "Be brief.", "max_output_tokens": 20, "max_tool_calls": 3, "metadata": {"a": "b"}, "temperature": 0.2,
        "top_p": 0.9, "top_logprobs": 1, "tool_choice": "none", "truncation": "auto", "user": "u", "safety_identifier": "s",
        "prompt_cache_key": "k", "reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"},
    }  # fmt: skip
    echo = request(**fields, service_tier="flex", previous_response_id=RESPONSE_ID).echo
    assert {key: echo[key] for key in fields} == {**fields, "text": {"verbosity": "low", "format": {"type": "text"}}}
    assert (echo["service_tier"], echo["previous_response_id"], echo["background"]) == ("default", RESPONSE_ID, False)
    Response.model_validate({"id": RESPONSE_ID, "object": "response", "created_at": 0, "output": [], **echo})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": ["read"]}, "tools.0"),
        ({"tools": [READ, {"name": "write"}]}, "tools.1"),
        ({"tools": [{"type": "function", "function": {"name": "read"}}]}, "tools.0"),
        ({"tools": [WEB_SEARCH, READ, READ]}, "tools.2"),
        ({"tools": [READ], "tool_choice": 5}, "tool_choice"),
        ({"tools": [READ], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [READ], "tool_choice": {"type": "function", "name": "write"}}, "tool_choice"),
        ({"tools": [READ], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [WEB_SEARCH]}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
    ],
)
def test_what_is_not_possible_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(**fields)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_a_schema_that_is_none_is_named_by_the_flat_field() -> None:
    with pytest.raises(InvalidToolSchema) as refused:
        request(tools=[WEB_SEARCH, {**READ, "parameters": {"type": "nonsense"}}])
    assert refused.value.param == "tools.1.parameters"


def test_unknown_fields_are_ignored_unless_the_setting_is_strict() -> None:
    assert request(client_metadata={"a": "b"}).chat.messages
    assert request(stream_options={"include_obfuscation": False}, strict_fields=True).chat.messages
    with pytest.raises(InvalidRequest) as refused:
        request(client_metadata={"a": "b"}, strict_fields=True)
    assert refused.value.param == "client_metadata"


@given(st.dictionaries(st.sampled_from(sorted(ResponsesBody.model_fields)), NEARLY, max_size=5))
def test_whatever_arrives_is_understood_or_refused(fields: dict[str, Any]) -> None:
    try:
        ResponsesBody.model_validate({"model": "m", "input": "hi", **fields})
    except ValidationError:
        return  # The edge answers 400.
    with contextlib.suppress(InvalidRequest, NotFound):
        request(**fields)


@given(
    st.lists(st.dictionaries(WORD, NEARLY, max_size=6), max_size=4), st.lists(st.dictionaries(WORD, NEARLY, max_size=6)), NEARLY
)
def test_whatever_items_and_tools_arrive_are_understood_or_refused(items: Any, tools: Any, choice: Any) -> None:
    with contextlib.suppress(InvalidRequest, NotFound):
        request(input=[{"role": "user", "content": "hi"}, *items], tools=[READ, *tools], tool_choice=choice)
