"""How the base model's chat template renders a conversation: ChatML, with tools as Qwen2.5's published template shows them."""

from __future__ import annotations

import json

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deploy.local.base_model import TEMPLATE

DEFAULT = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "read", "description": "é <b>", "parameters": {"type": "object"}}}


class Refused(Exception):
    pass


def refuse(reason):
    raise Refused(reason)


def render(*messages, tools=None, prompt=False):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(TEMPLATE.read_text()).render(messages=messages, tools=tools, add_generation_prompt=prompt)


def call(name, arguments):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_without_a_system_message_the_model_is_told_who_it_is():
    assert render(USER, prompt=True) == DEFAULT + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_callers_system_text_replaces_it(role):
    assert render({"role": role, "content": "Be brief."}, USER).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"
    )


def test_tools_follow_the_system_text_one_a_line():
    system = render(USER, tools=[TOOL, TOOL]).split("<|im_end|>")[0]
    line = '{"type": "function", "function": {"name": "read", "description": "é <b>", "parameters": {"type": "object"}}}'
    assert system == (
        DEFAULT.removesuffix("<|im_end|>\n") + "\n\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{line}\n{line}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


@pytest.mark.parametrize("arguments", ['{"path": "a"}', {"path": "a"}], ids=["text", "object"])
def test_a_tool_call_reads_the_same_whether_its_arguments_are_text_or_an_object(arguments):
    turn = render(USER, {"role": "assistant", "content": None, "tool_calls": [call("read", arguments)]}).split("Hi<|im_end|>\n")[
        1
    ]
    assert turn == '<|im_start|>assistant\n<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call><|im_end|>\n'


def test_text_and_several_calls_stand_on_lines_of_their_own():
    turn = render(USER, {"role": "assistant", "content": "Both.", "tool_calls": [call("a", "{}"), call("b", "{}")]})
    assert turn.endswith(
        '<|im_start|>assistant\nBoth.\n<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>'
        '\n<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call><|im_end|>\n'
    )


def test_results_in_a_row_share_one_user_turn():
    results = [{"role": "tool", "tool_call_id": "call_1", "content": text} for text in ("one", "two")]
    assert render(USER, *results, USER).split("Hi<|im_end|>\n", 1)[1] == (
        "<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
@pytest.mark.parametrize("absent", [{"content": None}, {}], ids=["null", "absent"])
def test_a_message_without_content_is_empty_text(role, absent):
    assert "None" not in render(USER, {"role": role, **absent})


def test_an_unknown_role_is_refused_by_name():
    with pytest.raises(Refused, match='"wizard"'):
        render({"role": "wizard", "content": "x"})
