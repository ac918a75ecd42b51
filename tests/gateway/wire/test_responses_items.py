"""Items in every shape that clients send: the shape in which they are shown again, and the chat messages they stand for."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from services.gateway.records.stored import History
from services.gateway.wire.responses_items import (
    LEFT_OUT,
    OpenCall,
    compaction,
    input_items,
    messages_of,
    open_calls,
    references,
    with_ids,
)
from services.shared.contracts.errors import InvalidRequest, NotFound
from services.shared.contracts.messages import normalised

RESPONSE_ID = "resp_" + "0123456789abcdef" * 2
CALL = {"type": "function_call", "call_id": "call_1", "name": "read", "arguments": '{"path":"a"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "hello"}
OPEN = OpenCall(call_id="call_1", name="read", arguments='{"path":"a"}')
SHOWN: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def items(given: Any, *, history: History | None = None, referenced: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    found = with_ids(input_items(given, history=history or History(), referenced=referenced or {}), RESPONSE_ID)
    for item in found:
        SHOWN.validate_python(item)
    return found


def chat(given: Any) -> list[dict[str, Any]]:
    return normalised(messages_of(items(given)))


def test_text_is_one_message_of_the_user() -> None:
    [item] = items("hi")
    content = [{"type": "input_text", "text": "hi"}]
    assert item == {
        "id": f"msg_{RESPONSE_ID[5:]}0000",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": content,
    }
    assert chat("hi") == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"role": "user", "content": "hi"}, ("user", "hi")),
        ({"type": "message", "role": "user", "content": "hi"}, ("user", "hi")),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]}, ("user", "a\nb")),
        ({"role": "developer", "content": "be brief"}, ("system", "be brief")),
        ({"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be brief"}]}, ("system", "be brief")),
        ({"role": "assistant", "content": "ok"}, ("assistant", "ok")),
        (
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "final_answer",
             "content": [{"type": "output_text", "text": "ok", "annotations": [], "logprobs": []}]},
            ("assistant", "ok"),
        ),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, ("assistant", "no")),
        ({"role": "assistant", "content": [{"type": "input_text", "text": "ok"}]}, ("assistant", "ok")),
    ],
)  # fmt: skip
def test_a_message_in_every_shape(entry: dict[str, Any], message: tuple[str, str]) -> None:
    assert [(each["role"], each["content"]) for each in chat([entry])] == [message]


@pytest.mark.parametrize(
    ("call", "output"),
    [
        (CALL, OUTPUT),
        ({**CALL, "id": "fc_1", "status": "completed"}, {**OUTPUT, "id": "fco_1", "status": "completed"}),
        (CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "hello"}]}),
    ],
)
def test_a_call_and_its_result_in_every_shape(call: dict[str, Any], output: dict[str, Any]) -> None:
    function = {"name": "read", "arguments": '{"path":"a"}'}
    assert chat([{"role": "user", "content": "hi"}, call, output]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
        {"role": "tool", "content": "hello", "tool_call_id": "call_1"},
    ]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert items([{**CALL, "arguments": ""}])[0]["arguments"] == "{}"


def test_calls_of_one_turn_are_one_message_and_join_the_text_before_them() -> None:
    second = {**CALL, "call_id": "call_2"}
    turn = [{"role": "assistant", "content": "Let me look."}, CALL, second, OUTPUT, {**OUTPUT, "call_id": "call_2"}, CALL]
    messages = chat(turn)
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "assistant"]
    assert messages[0]["content"] == "Let me look."
    assert [call["id"] for call in messages[0]["tool_calls"]] == ["call_1", "call_2"]


def test_reasoning_is_left_out_and_own_ids_are_kept() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "…"}
    assert [item["id"] for item in items([reasoning, {**CALL, "id": "fc_mine"}, OUTPUT])] == [
        "fc_mine",
        f"fco_{RESPONSE_ID[5:]}0001",
    ]


def test_a_call_of_a_tool_that_takes_text_is_read_as_one_of_a_function() -> None:
    patch = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "apply_patch", "input": "*** Begin"}
    done = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Success."}
    called, answered = chat([patch, done])
    assert called["tool_calls"][0]["function"] == {"name": "apply_patch", "arguments": '{"input": "*** Begin"}'}
    assert answered == {"role": "tool", "content": "Success.", "tool_call_id": "call_1"}


@pytest.mark.parametrize(
    ("call", "output", "read"),
    [
        (
            {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "local_shell_call_output", "id": "call_1", "output": "a.txt"},
            ("local_shell", '{"type": "exec", "command": ["ls"]}', "a.txt"),
        ),
        (
            {"type": "shell_call", "call_id": "call_1", "action": {"commands": ["ls ä"]}},
            {"type": "shell_call_output", "call_id": "call_1", "output": [{"stdout": "ä", "outcome": {"type": "timeout"}}]},
            ("shell", '{"commands": ["ls ä"]}', '[{"stdout": "ä", "outcome": {"type": "timeout"}}]'),
        ),
        (
            {"type": "apply_patch_call", "call_id": "call_1", "operation": {"type": "delete_file", "path": "a"}},
            {"type": "apply_patch_call_output", "call_id": "call_1", "status": "failed"},
            ("apply_patch", '{"type": "delete_file", "path": "a"}', "failed"),
        ),
    ],
)
def test_what_the_client_carried_out_is_read_as_calls_of_functions(
    call: dict[str, Any], output: dict[str, Any], read: tuple[str, str, str]
) -> None:
    called, answered = chat([call, output])
    function = called["tool_calls"][0]["function"]
    assert (function["name"], function["arguments"], answered["content"]) == read


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_says_nothing_to_our_models_is_left_out(kind: str) -> None:
    elsewhere = {
        "type": kind,
        "id": "x_1",
        "call_id": "call_9",
        "status": "completed",
        "encrypted_content": "x",
        "role": "developer",
    }
    assert chat([elsewhere, {"role": "assistant", "content": "Found."}]) == [{"role": "assistant", "content": "Found."}]


def test_a_compaction_of_ours_is_read_and_others_are_left_out() -> None:
    ours = compaction("They met in Köln.")
    assert chat([ours, {"role": "user", "content": "hi"}])[0]["content"].endswith("They met in Köln.")
    assert chat([compaction("half an emoji \ud83d"), {"role": "user", "content": "hi"}])[0]["content"].endswith("emoji ?")
    held = ours["encrypted_content"]
    texts = "agentflux1." + base64.b64encode(b"They met.").decode()
    for other in ("gAAA", held[:-3], held + "é", texts, None, 5):
        elsewhere = {"type": "compaction", "encrypted_content": other}
        assert chat([elsewhere, {"role": "user", "content": "hi"}]) == [{"role": "user", "content": "hi"}]


def test_a_compaction_stands_for_all_before_it_but_what_the_user_said() -> None:
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        CALL,
        OUTPUT,
        {"role": "assistant", "content": "ok"},
    ]
    messages = chat([*before, compaction("They met."), {"role": "user", "content": "and?"}])
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]


def test_a_result_may_come_after_a_compaction_that_holds_its_call() -> None:
    before = [{"role": "user", "content": "hi"}, CALL]
    assert open_calls(items(before)) == [OPEN]
    assert open_calls(items([*before, OUTPUT])) == []
    kept = compaction("They met.", open_calls(items(before)))
    # A compaction of a compaction holds them as well.
    assert open_calls(items([kept])) == [OPEN]
    for between in ([], [CALL]):
        messages = chat([before[0], kept, *between, OUTPUT])
        assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
        assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_1"]
    for chain in (items([*before, kept]), items([kept])):
        assert items([OUTPUT], history=History(items=chain)) != []


def test_media_in_a_result_are_kept_as_a_line_of_text() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 1_000_000}
    [_, kept] = items([CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "ok"}, image]}])
    assert kept["output"] == [
        {"type": "input_text", "text": "ok"},
        {"type": "input_text", "text": "[image/png, 732 KiB, not shown: this model reads text]"},
    ]


def test_media_that_a_client_puts_behind_a_result_are_a_line_of_text_until_the_assistant_goes_on() -> None:
    shown = {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"}]}
    assert chat([CALL, OUTPUT, shown])[-1]["content"] == "[file, 3 B, a.pdf, not shown: this model reads text]"
    with pytest.raises(InvalidRequest, match="input_file") as refused:
        items([CALL, OUTPUT, {"role": "assistant", "content": "ok"}, shown])
    assert refused.value.param == "input.3.content.0"


def test_a_request_for_a_compaction_is_the_last_item() -> None:
    with pytest.raises(InvalidRequest, match="last item") as refused:
        items([{"role": "user", "content": "hi"}, {"type": "compaction_trigger"}, {"role": "user", "content": "hi"}])
    assert refused.value.param == "input.1.type"


def test_what_a_tool_was_asked_for_may_not_be_nested_too_deeply() -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    for entry, field in (("custom_tool_call", "input"), ("shell_call", "action")):
        with pytest.raises(InvalidRequest, match="too deeply"):
            items([{"type": entry, "call_id": "call_1", "name": "x", field: deep}])


def test_an_id_that_was_sent_twice_counts_once_or_pages_would_go_round_in_circles() -> None:
    twice = {"id": "msg_1", "role": "user", "content": "hi"}
    assert [item["id"] for item in items([twice, twice])] == ["msg_1", f"msg_{RESPONSE_ID[5:]}0001"]


def test_a_result_may_answer_a_call_of_the_stored_history() -> None:
    [item] = items([OUTPUT], history=History(items=items([CALL]), chain=[RESPONSE_ID]))
    assert item["output"] == "hello"


@pytest.mark.parametrize("reference", [{"type": "item_reference"}, {"type": None}, {}])
def test_a_reference_stands_for_the_stored_item(reference: dict[str, Any]) -> None:
    given = [{**reference, "id": "fc_1"}, OUTPUT]
    [stored] = items([{**CALL, "id": "fc_1"}])
    assert references(given) == ["fc_1"]
    assert [item["type"] for item in items(given, referenced={"fc_1": stored})] == [
        "function_call", "function_call_output",
    ]  # fmt: skip
    with pytest.raises(NotFound) as refused:
        items(given)
    assert (refused.value.param, "'fc_1'" in refused.value.message) == ("input.0.id", True)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        (5, "input"),
        ({"role": "user", "content": "hi"}, "input"),
        ([], "input"),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], "input"),
        (["hi"], "input.0"),
        ([{"content": "hi"}], "input.0.type"),
        ([{"type": "web_search_call", "id": "ws_1"}], "input"),
        ([{"type": "unheard_of", "id": "x_1"}], "input.0.type"),
        ([{"type": "local_shell_call", "action": {}}], "input.0.call_id"),
        ([{"type": ["message"]}], "input.0.type"),
        ([{"role": "tool", "content": "hi"}], "input.0.role"),
        ([{"role": ["user"], "content": "hi"}], "input.0.role"),
        ([{"role": "user"}], "input.0.content"),
        ([{"role": "user", "content": 5}], "input.0.content"),
        ([{"role": "user", "content": ["hi"]}], "input.0.content.0"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}], "input.0.content.0"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_file"}]}], "input.0.content.1"),
        ([{"role": "user", "content": [{"type": "input_text", "text": None}]}], "input.0.content.0"),
        ([{**CALL, "call_id": None}], "input.0.call_id"),
        ([{**CALL, "name": ""}], "input.0.name"),
        ([{**CALL, "arguments": {"path": "a"}}], "input.0.arguments"),
        ([CALL, {**OUTPUT, "output": None}], "input.1.output"),
        ([CALL, {**OUTPUT, "output": [{"type": "unheard_of"}]}], "input.1.output.0"),
        ([compaction("They met.", [OPEN]), {**OUTPUT, "call_id": "call_9"}], "input.1.call_id"),
        ([OUTPUT, CALL], "input.0.call_id"),
        ([CALL, {**OUTPUT, "call_id": "call_9"}], "input.1.call_id"),
        ([{"type": "item_reference"}], "input.0.id"),
        ([{"type": "item_reference", "id": ["fc_1"]}], "input.0.id"),
    ],
)
def test_what_cannot_be_understood_is_named(given: Any, param: str) -> None:
    with pytest.raises((InvalidRequest, NotFound)) as refused:
        items(given)
    assert refused.value.param == param
    assert param in refused.value.message
