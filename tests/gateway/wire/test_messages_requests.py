"""Anthropic's requests in the words of chat requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.wire.messages_requests import MessagesBody, understood_messages
from services.gateway.wire.requests import ChatRequest, UnknownTools
from services.shared.contracts.errors import InvalidRequest
from tests.fakes import tool

READ: dict[str, Any] = {
    "name": "read_file",
    "description": "Reads.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {"path": "ä.txt"}}


def understood(*messages: Any, unknown_tools: UnknownTools = "ignore", **fields: Any) -> ChatRequest:
    """The request of these messages; a text is one of the user."""
    said = [{"role": "user", "content": message} if isinstance(message, str) else message for message in messages or ("hi",)]
    body = MessagesBody.model_validate({"model": "base", "max_tokens": 100, "messages": said, **fields})
    return understood_messages(body, default_tools=[tool("default")], session="s", unknown_tools=unknown_tools)


def refused(*messages: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        understood(*messages, **fields)
    return caught.value


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "cache_control": {"type": "ephemeral"}}


def result(content: Any = "found", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **fields}


# --- Messages ---


@pytest.mark.parametrize(
    "system", ["Be brief.", [text("Be brief.")], [text("x-anthropic-billing-header: cch=1"), text("Be brief.")]]
)
def test_system_is_text_or_blocks_and_bills_are_left_out(system):
    assert understood(system=system).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_content_is_text_or_blocks():
    assert understood(user(text("a"), text("b"))).messages == understood("a\nb").messages


def test_a_call_and_its_result_become_a_tool_call_and_a_tool_message():
    history = understood("read", assistant(text("I look."), CALL), user(result(), text("and now?")), tools=[READ]).messages
    call = {"id": "toolu_1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "ä.txt"}'}}
    assert history[1:] == [
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "found"},
        {"role": "user", "content": "and now?"},
    ]


def test_several_results_are_several_messages():
    second = {**CALL, "id": "toolu_2"}
    history = understood("read", assistant(CALL, second), user(result("1"), result("2", tool_use_id="toolu_2"))).messages
    assert [(message["tool_call_id"], message["content"]) for message in history[2:]] == [("toolu_1", "1"), ("toolu_2", "2")]
    assert history[1]["content"] is None


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (result(), "found"),
        (result([text("a"), text("b")]), "a\nb"),
        (result(None), ""),
        (result("no such file", is_error=True), "Error:\nno such file"),
        (result("found", is_error=False), "found"),
        (result([{"type": "tool_reference", "tool_name": "read_file"}]), "read_file"),
    ],
)
def test_a_result_is_text_or_blocks_or_nothing_and_an_error_says_so(block, read):
    assert understood("read", assistant(CALL), user(block)).messages[-1]["content"] == read


def test_media_in_a_result_are_a_line_of_text():
    png = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4096}}
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 4096}}
    pages = {"type": "document", "title": "T", "source": {"type": "content", "content": [text("a"), png]}}
    request = understood("a", assistant(CALL), user(result([text("ok"), png, pdf, pages])))
    image = "[image/png, 3 KiB, not shown: this model reads text]"
    lines = ["ok", image, "[application/pdf, 3 KiB, not shown: this model reads text]", "T", "a", image]
    assert request.messages[-1]["content"].splitlines() == lines
    assert request.not_shown == 3


def test_media_beside_a_result_are_a_line_of_text_until_the_assistant_goes_on():
    png = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    request = understood("a", assistant(CALL), user(result(), text("This is file 1:"), png), user(png))
    line = "[image, https://x.example/a.png, not shown: this model reads text]"
    assert [message["content"] for message in request.messages[2:]] == ["found", f"This is file 1:\n{line}", line]
    error = refused("a", assistant(CALL), user(result()), assistant(text("ok")), user(png))
    assert error.param == "messages.4.content.0"


def test_what_a_browser_showed_is_read_as_json():
    tabs = [{"id": "1", "url": "https://x.example", "active": True}]
    shown = {"type": "browser_state", "tabs": tabs, "cache_control": {"type": "ephemeral"}}
    assert json.loads(understood("a", assistant(CALL), user(result([shown]))).messages[-1]["content"]) == {"tabs": tabs}


def test_thinking_is_not_read_again():
    thoughts = ({"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "redacted_thinking", "data": "x"})
    assert understood("a", assistant(*thoughts, text("b")), "c").messages[1] == {"role": "assistant", "content": "b"}


def test_what_anthropics_own_tools_did_is_left_out():
    searched = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    assert understood("a", assistant(searched, found, text("b")), "c").messages[1] == {"role": "assistant", "content": "b"}


def test_a_system_message_may_stand_among_the_others():
    assert understood("a", {"role": "system", "content": "Be brief."}).messages[-1] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("block", [
    {"type": "compaction", "content": None}, {"type": "fallback", "from": {}, "to": {}},
    {"type": "advisor_tool_result", "tool_use_id": "x", "content": {}}, {"type": "mcp_tool_listing", "tools": []},
])  # fmt: skip
def test_what_a_provider_notes_for_itself_is_left_out(block):
    assert (understood("a", assistant(block, text("b")), "c").messages[1]["content"] or "").strip() == "b"


def test_a_system_message_that_only_offers_tools_is_no_message():
    offer = {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}]}
    assert [message["role"] for message in understood("a", offer, "b").messages] == ["user", "user"]
    assert refused(offer).param == "messages"


def test_a_summary_of_what_came_before_is_read():
    [_, said, _] = understood("a", assistant({"type": "compaction", "content": "They met."}, text("b")), "c").messages
    assert said["content"] == "What was said before, in short:\nThey met.\nb"


@pytest.mark.parametrize(
    ("block", "read"),
    [
        ({"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}, "T\na"),
        ({"type": "document", "source": {"type": "content", "content": "a"}}, "a"),
        ({"type": "document", "context": "C", "source": {"type": "content", "content": [text("a"), text("b")]}}, "C\na\nb"),
        ({"type": "search_result", "title": "T", "source": "http://x", "content": [text("a")]}, "T\nhttp://x\na"),
    ],
)
def test_what_is_text_in_another_form_is_read(block, read):
    assert understood(user(block, text("and?"))).messages[-1]["content"] == f"{read}\nand?"
    assert understood("read", assistant(CALL), user(result([block]))).messages[-1]["content"] == read


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x"}}, ".source"),
        ({"type": "document", "source": "x"}, ".source"),
        ({"type": "document", "source": {"type": "text", "data": 5}}, ".content"),
        ({"type": "search_result", "content": [{"type": "image"}]}, ".content.0"),
        ({"type": "search_result"}, ".content"),
    ],
)
def test_a_document_that_is_no_text_is_named(block, param):
    assert refused(user(block)).param == f"messages.0.content.0{param}"


@pytest.mark.parametrize("kind", ["image", "container_upload", "server_tool_use", None])
def test_a_block_that_is_not_text_is_refused_by_its_place(kind):
    error = refused("a", assistant(text("b")), user(text("look"), {"type": kind, "source": {}}))
    assert (error.status, error.param) == (400, "messages.2.content.1")
    assert f"{kind!r}" in error.message
    if kind != "image":
        assert refused("a", assistant(CALL), user(result([{"type": kind}]))).param == "messages.2.content.0.content.0"
    assert refused(system=[{"type": kind}]).param == "system.0"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (["a", user()], "messages.1.content"),
        (["a", "b", 7], "messages.2.role"),
        ([{"role": "tool", "content": "x"}], "messages.0.role"),
        ([user({"type": "text"})], "messages.0.content.0.text"),
        ([{"role": "user", "content": 7}], "messages.0.content"),
        ([user(result())], "messages.0.content.0.tool_use_id"),
        ([user(CALL)], "messages.0.content.0"),
        (["a", assistant({**CALL, "input": "{}"}), "b"], "messages.1.content.0.input"),
        (["a", assistant({**CALL, "id": None}), "b"], "messages.1.content.0.id"),
    ],
)
def test_a_message_that_cannot_be_understood_is_named(messages, param):
    assert refused(*messages).param == param


def test_an_input_that_is_nested_too_deeply_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    assert refused("a", assistant({**CALL, "input": deep}), "b").param == "messages.1.content.0.input"


# --- Tools ---


def test_tools_have_their_schema_under_another_name():
    (known,) = understood(tools=[{**READ, "type": "custom", "cache_control": {"type": "ephemeral"}}]).tools
    assert (known.name, known.description, known.parameters) == ("read_file", "Reads.", READ["input_schema"])


def test_without_tools_the_models_own_ones_stand_in():
    assert [each.name for each in understood().tools] == ["default"]


def test_tools_that_anthropic_defines_are_ignored_or_refused():
    others = [SEARCH, {"type": "bash_20250124", "name": "bash"}, {"type": "computer_20250124", "name": "computer"}]
    assert [each.name for each in understood(tools=[*others, READ]).tools] == ["read_file"]
    error = refused(tools=[READ, *others], unknown_tools="refuse")
    assert error.param == "tools.1.type"
    assert "web_search_20250305" in error.message


@pytest.mark.parametrize(
    ("entry", "param"),
    [("x", "tools.0"), ({"input_schema": {}}, "tools.0.name"), ({"name": "a"}, "tools.0.input_schema")],
)
def test_a_tool_that_is_none_is_named(entry, param):
    assert refused(tools=[entry]).param == param


def test_the_choice_of_tools():
    def choice(**given: Any) -> Any:
        return understood(tools=[READ], tool_choice=given).choice

    assert (choice(type="auto").may_answer, choice(type="auto").may_call) == (True, True)
    assert (choice(type="any").may_answer, choice(type="any").names) == (False, None)
    assert choice(type="tool", name="read_file").names == ("read_file",)
    assert not choice(type="none").may_call
    assert refused(tools=[READ], tool_choice={"type": "required"}).param == "tool_choice.type"
    assert refused(tools=[READ], tool_choice={"type": ["any"]}).param == "tool_choice.type"
    assert "read_file" in refused(tools=[READ, SEARCH], tool_choice={"type": "tool", "name": "web_search"}).message


@pytest.mark.parametrize(("disabled", "parallel"), [({}, False), ({"disable_parallel_tool_use": True}, False),
                                                    ({"disable_parallel_tool_use": False}, True)])  # fmt: skip
def test_several_calls_in_a_turn_have_to_be_asked_for(disabled, parallel):
    assert understood(tools=[READ], tool_choice={"type": "auto", **disabled}).parallel is parallel


# --- The rest ---


def test_what_the_engine_may_see():
    request = understood(
        stop_sequences=["END"], temperature=0.5, top_p=0.9, top_k=40, metadata={"user_id": "u"}, stream=True,
        thinking={"type": "enabled", "budget_tokens": 1024}, service_tier="auto", mcp_servers=[],
    )  # fmt: skip
    assert request.relayed == {"max_tokens": 100, "stop": ["END"], "temperature": 0.5, "top_p": 0.9, "top_k": 40}
    assert (request.user, request.session, request.stream, request.max_tokens) == ("u", "s", True, 100)


def test_an_output_format_is_a_response_format():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = understood(output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "low"}).relayed
    assert wanted["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": schema, "strict": True},
    }
    older = understood(output_format={"type": "json_schema", "schema": schema}).relayed
    assert older["response_format"] == wanted["response_format"]
    assert "response_format" not in understood(output_config={"effort": "low"}).relayed
    assert refused(output_config={"format": {"type": "xml"}}).param == "output_config.format"


@pytest.mark.parametrize(
    "wrong",
    [{"max_tokens": None}, {"max_tokens": 0}, {"messages": []}, {"temperature": 1.5}, {"top_k": -1}, {"top_p": 2},
     {"stop_sequences": "END"}],
)  # fmt: skip
def test_what_is_out_of_bounds_is_no_body(wrong):
    fields = {"model": "base", "max_tokens": 1, "messages": [user(text("hi"))], **wrong}
    with pytest.raises(ValidationError):
        MessagesBody.model_validate({name: value for name, value in fields.items() if value is not None})


def test_half_an_emoji_is_no_obstacle():
    request = understood("\ud83d", assistant({**CALL, "input": {"\ud83d": "\ud83d"}}), user(result("\ud83d")), system="\ud83d")
    assert json.dumps(request.messages, ensure_ascii=False).encode()
