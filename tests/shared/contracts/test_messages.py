"""Conversations as clients of other times and providers send them."""

from __future__ import annotations

from typing import Any

import pytest

from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.messages import normalised

ASKED = {"role": "user", "content": "Patch it."}
PATCH = {"id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}}


def test_a_call_of_a_custom_tool_is_read_as_one_of_a_function():
    done = {"role": "tool", "tool_call_id": "call_1", "content": "Success."}
    _, called, answered = normalised([ASKED, {"role": "assistant", "tool_calls": [PATCH]}, done])
    function = {"name": "apply_patch", "arguments": '{"input": "*** Begin"}'}
    assert called["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]
    assert answered == {**done, "content": "Success."}


@pytest.mark.parametrize("call", [{"type": "custom"}, {"type": "custom", "custom": {}}, {"type": "custom", "custom": "x"}])
def test_a_custom_tool_without_a_name_is_pointed_at(call: dict[str, Any]):
    with pytest.raises(InvalidRequest) as refused:
        normalised([ASKED, {"role": "assistant", "tool_calls": [{"id": "call_1", **call}]}])
    assert refused.value.param == "messages.1.tool_calls.0"


def test_a_function_call_of_old_and_its_result_belong_together():
    def call(name: str) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": '{"a": 1}'}}

    def result(name: str) -> dict[str, Any]:
        return {"role": "function", "name": name, "content": f"{name} is done"}

    messages = normalised([ASKED, call("one"), result("one"), call("two"), result("two")])
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "tool"]
    for called, answered in (messages[1:3], messages[3:]):
        (made,) = called["tool_calls"]
        assert made["id"] == answered["tool_call_id"]
        assert answered["content"] == f"{made['function']['name']} is done"
    assert messages[1]["tool_calls"][0]["id"] != messages[3]["tool_calls"][0]["id"]


def test_a_result_of_old_without_its_call_is_pointed_at():
    with pytest.raises(InvalidRequest, match="'one' answers no tool call") as refused:
        normalised([ASKED, {"role": "function", "name": "one", "content": "done"}])
    assert refused.value.param == "messages.1.name"


@pytest.mark.parametrize("kind", ["thinking", "redacted_thinking", "reasoning"])
def test_what_a_model_thought_is_not_read_again(kind: str):
    parts = [{"type": kind, "thinking": "hm", "text": "hm"}, {"type": "text", "text": "Yes."}]
    assert normalised([ASKED, {"role": "assistant", "content": parts}])[1]["content"] == "Yes."
    with pytest.raises(InvalidRequest):
        normalised([{"role": "user", "content": parts}])
