"""Requests that are unusual and legal, or nearly so, over HTTP at the whole stack: none of them is an internal error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.stack import running_stack

pytestmark = pytest.mark.anyio
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "hello there"}]
CALL = [{"role": "user", "content": "call get_weather"}]


def function(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def after(call_id: Any, name: Any = "x", arguments: Any = "{}", **result: Any) -> list[dict[str, Any]]:
    """A conversation in which `name` was called."""
    calls = [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    told = {"role": "tool", "tool_call_id": call_id, "content": "done", **result}
    return [*HELLO, {"role": "assistant", "tool_calls": calls}, told]


def shell(kind: str, **output: Any) -> list[dict[str, Any]]:
    """Items of a conversation in which the client carried out a call of this kind."""
    asked = {"type": kind, "call_id": "a", "action": {"command": ["ls"]}, "operation": {"type": "delete_file", "path": "x"}}
    asked["name"] = "see"
    return [*HELLO, asked, {"type": f"{kind}_output", "call_id": "a", **output}]


PATCH = {"id": "a", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}}
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
WEATHER = function("get_weather", city={"type": "string"})
LONGEST = "a" * 64
PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, **fields: Any) -> httpx.Response:
    needed = {"max_tokens": 50} if path == MESSAGES else {}
    # Not by way of httpx's own encoder, which refuses what clients in other languages send.
    body = json.dumps({"model": "base", **needed, **fields}).encode()
    return await client.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": HELLO, "tools": []}),
        (CHAT, {"messages": HELLO, "tools": [], "parallel_tool_calls": True}),
        (CHAT, {"messages": HELLO, "stop": []}),
        (CHAT, {"messages": HELLO, "stop": ["a"] * 20}),
        (CHAT, {"messages": HELLO, "n": 3, "logprobs": True, "top_logprobs": 2}),
        (CHAT, {"messages": HELLO, "stream_options": {"include_usage": True, "include_obfuscation": True}}),
        (CHAT, {"messages": CALL, "tools": [WEATHER], "max_tokens": 1}),
        (CHAT, {"messages": CALL, "tools": [WEATHER], "logprobs": True, "top_logprobs": 20}),
        (CHAT, {"messages": CALL, "tools": [WEATHER], "n": 2, "tool_choice": "none"}),
        (CHAT, {"messages": [{"role": "user", "content": f"call {LONGEST}"}], "tools": [function(LONGEST)]}),
        (CHAT, {"messages": [{"role": "user", "content": "call 天气"}], "tools": [function("天气", 城市={"type": "string"})]}),
        (CHAT, {"messages": HELLO, "tools": [function(f"tool_{number}") for number in range(128)]}),
        (CHAT, {"messages": [*HELLO, {"role": "assistant", "refusal": "no", "content": None}, *CALL], "tools": [WEATHER]}),
        (CHAT, {"messages": [{"role": "developer", "content": "x"}, {"role": "user", "name": "bob", "content": "hey"}]}),
        (CHAT, {"messages": after("a", "天" * 64, '{"é": "ü💥"}'), "tools": [WEATHER]}),
        (CHAT, {"messages": after("a", arguments="not JSON"), "tools": [WEATHER]}),
        (CHAT, {"messages": after("a", arguments='{"a": 1e400, "b": NaN}'), "tools": [WEATHER]}),
        (CHAT, {"messages": after("a", content="half an emoji \ud83d"), "tools": [WEATHER]}),
        (CHAT, {"messages": HELLO, "prediction": {"type": "content", "content": "x"}, "store": True, "service_tier": "flex"}),
        (CHAT, {"messages": HELLO, "stream_options": {"include_usage": None}, "top_p": 0}),
        (CHAT, {"messages": [*HELLO, {"role": "assistant", "tool_calls": [PATCH]}, after("a")[-1]], "tools": [WEATHER]}),
        (CHAT, {"messages": [*HELLO, OLD_CALL, {"role": "function", "name": "f", "content": "x"}], "tools": [WEATHER]}),
        (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "Well, "}]}),
        (CHAT, {"messages": [*CALL, {"role": "assistant", "content": "Well, "}], "tools": [WEATHER]}),
        (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}, *HELLO]}),
        (RESPONSES, {"input": "hello", "truncation": "auto"}),
        (RESPONSES, {"input": "hello", "truncation": "auto", "max_output_tokens": 200_000}),
        (RESPONSES, {"input": shell("local_shell_call", output="x")}),
        (RESPONSES, {"input": shell("shell_call", output=[{"stdout": "x", "stderr": "", "outcome": {"type": "timeout"}}])}),
        (RESPONSES, {"input": shell("apply_patch_call", status="completed")}),
        (RESPONSES, {"input": shell("computer_call", output={"type": "computer_screenshot", "image_url": "data:"})}),
        (RESPONSES, {"input": [{"type": "compaction", "encrypted_content": "x"}, *HELLO]}),
        (CHAT, {"messages": [*after("a", content=[IMAGE]), {"role": "user", "content": [IMAGE]}], "tools": [WEATHER]}),
        (RESPONSES, {"input": shell("custom_tool_call", output=[{"type": "input_image", "image_url": PNG}])}),
        (MESSAGES, {"messages": [*HELLO, {"role": "assistant", "content": "Well, "}]}),
        (MESSAGES, {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "compaction", "content": "x"}]}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}, *HELLO]}),
        (MESSAGES, {"messages": CALL, "tools": [{"name": "get_weather", "input_schema": {"type": "object"}}], "max_tokens": 1}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_unusual_requests_are_answered(client: httpx.AsyncClient, path: str, fields: dict[str, Any], stream: bool) -> None:
    reply = await post(client, path, stream=stream, **fields)
    assert reply.status_code == 200, reply.text
    assert '"error":{' not in reply.text


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        (CHAT, {"messages": [{"role": {}, "content": "x"}]}, "messages.0.role"),
        (CHAT, {"messages": after(["a"])}, "messages.2.tool_call_id"),
        (CHAT, {"messages": after(None)}, "messages.2.tool_call_id"),
        (CHAT, {"messages": HELLO, "stop": 5}, "stop"),
        (CHAT, {"messages": HELLO, "seed": 2**63}, "seed"),
        (CHAT, {"messages": HELLO, "seed": 10**400, "tools": [WEATHER]}, "seed"),
        (CHAT, {"messages": HELLO, "stop": ["a", 5]}, "stop"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": "x"}},
            "response_format.json_schema",
        ),
        (CHAT, {"messages": HELLO, "tools": [WEATHER, WEATHER]}, "tools.1"),
        (CHAT, {"messages": HELLO, "tools": [function(f"tool_{number}") for number in range(129)]}, "tools"),
        (CHAT, {"messages": HELLO, "tools": [WEATHER], "tool_choice": {"type": "function", "name": ["x"]}}, "tool_choice"),
        (CHAT, {"messages": HELLO, "tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": {}}}, "tool_choice"),
        (CHAT, {"messages": HELLO, "tools": [], "tool_choice": "required"}, "tool_choice"),
        (RESPONSES, {"input": "hi", "truncation": "always"}, "truncation"),
        (RESPONSES, {"input": [{"role": {}, "content": "x"}]}, "input.0.role"),
        (RESPONSES, {"input": [*HELLO, {"type": "compaction_trigger"}, *HELLO]}, "input.1.type"),
        (f"{RESPONSES}/compact", {"input": []}, "input"),
        (f"{RESPONSES}/input_tokens", {"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        (RESPONSES, {"input": [{"type": ["message"], "role": "user", "content": "x"}]}, "input.0.type"),
        (MESSAGES, {"messages": [{"role": ["user"], "content": "x"}]}, None),
        (MESSAGES, {"messages": [{"role": {}, "content": "x"}]}, None),
        (f"{MESSAGES}/count_tokens", {"messages": [{"role": {}, "content": "x"}]}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    reply = await post(client, path, stream=stream, **fields)
    assert reply.status_code == 400, reply.text
    # Anthropic's errors have no `param`.
    assert reply.json()["error"].get("param") == param, reply.text


@pytest.mark.parametrize("path", [CHAT, RESPONSES, f"{RESPONSES}/input_tokens", MESSAGES])
@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"5"])
async def test_a_body_that_is_no_object_is_told_in_words_of_the_wire(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    reply = await client.post(path, content=body)
    assert reply.status_code == 400
    assert "JSON object" in reply.json()["error"]["message"]
    assert "Body" not in reply.text


async def test_a_call_that_failed_twice_alike_is_answered_in_text(client: httpx.AsyncClient) -> None:
    """The trace of a weak model: the same folder, spelled in two ways, and the same error each time."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "call list_directory, list_directory, list_directory"}]
    tools = [function("list_directory", path={"type": "string"})]
    called = []
    for _ in range(6):
        reply = await post(client, CHAT, messages=messages, tools=tools)
        message = reply.json()["choices"][0]["message"]
        called.append(bool(message.get("tool_calls")))
        if not called[-1]:
            break
        error = "ENOENT: no such file or directory, scandir '/work/tools'"
        messages += [message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": error}]
    assert called == [True, True, False]
