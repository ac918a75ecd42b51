"""What agent frameworks rely on, item by item, over HTTP: the gateway, the selector and the argument service as they are, in
front of an engine that does what the user says.

Items that need a fault or a key have their tests where those are: 9, 10, 47 and 52 (keys, limits) in test_callers.py; 49 (streams
that fail half-way), 53 (clients that leave) and 54 (keep-alive) in test_chat_api.py; 48 also in tests/e2e/test_faults.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest

from tests.stack import Stack, running_stack

pytestmark = pytest.mark.anyio

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": CITY}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, TIME, NOW]
FLAT = [{"type": "function", **each["function"]} for each in (WEATHER, TIME)]
ONE, TWO, NONE = "call get_weather", "call get_weather, get_time", "How are you?"


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack() as running:
        yield running


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as http:
        yield http


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def called(*calls: tuple[str, str], results: bool = True) -> list[dict[str, Any]]:
    """A history in which these (id, tool) were called."""
    entries = [{"id": i, "type": "function", "function": {"name": name, "arguments": '{"city":"Oslo"}'}} for i, name in calls]
    told = [{"role": "tool", "tool_call_id": i, "content": "12 degrees"} for i, _ in calls] if results else []
    return [*user(ONE), {"role": "assistant", "content": None, "tool_calls": entries}, *told]


async def chat(client: httpx.AsyncClient, text: Any = NONE, status: int = 200, **fields: Any) -> dict[str, Any]:
    body = {"model": "base", "messages": user(text), **fields}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def message(client: httpx.AsyncClient, text: Any = NONE, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await chat(client, text, **fields))["choices"][0]["message"]
    return found


async def refused(client: httpx.AsyncClient, status: int = 400, **fields: Any) -> dict[str, Any]:
    body = await chat(client, status=status, **fields)
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert "detail" not in body
    error: dict[str, Any] = body["error"]
    return error


async def chunks(client: httpx.AsyncClient, text: Any = NONE, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "base", "messages": user(text), "stream": True, **fields}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(each) for each in data[:-1]]


def names(found: dict[str, Any]) -> list[str]:
    return [call["function"]["name"] for call in found.get("tool_calls", [])]


async def test_01_chat_completions(client: httpx.AsyncClient) -> None:
    body = await chat(client)
    assert (body["object"], body["model"]) == ("chat.completion", "base")
    assert body["choices"][0]["message"]["content"] == "You said: How are you?"


async def test_02_chat_completions_streamed(client: httpx.AsyncClient) -> None:
    found = await chunks(client)
    text = "".join(choice["delta"].get("content") or "" for chunk in found for choice in chunk["choices"])
    assert text == "You said: How are you?"
    reply = await client.post("/v1/chat/completions", json={"model": "base", "messages": user("hi"), "stream": True})
    assert reply.headers["x-accel-buffering"] == "no"


async def test_03_responses(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/responses", json={"model": "base", "input": ONE, "tools": FLAT})
    body = reply.json()
    assert (body["object"], body["status"]) == ("response", "completed")
    assert [(item["type"], item["name"]) for item in body["output"]] == [("function_call", "get_weather")]


async def test_04_responses_streamed(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/responses", json={"model": "base", "input": NONE, "stream": True})
    lines = reply.text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [line.removeprefix("event: ") for line in lines if line.startswith("event: ")] == [event["type"] for event in events]
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")


async def test_05_previous_response_id(client: httpx.AsyncClient) -> None:
    first = (await client.post("/v1/responses", json={"model": "base", "input": ONE, "tools": FLAT})).json()
    result = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "12 degrees"}
    following = {"model": "base", "previous_response_id": first["id"], "input": [result], "tools": FLAT}
    second = (await client.post("/v1/responses", json=following)).json()
    assert second["output"][0]["content"][0]["text"] == "The result is 12 degrees"
    unknown = await client.post("/v1/responses", json={"model": "base", "input": "hi", "previous_response_id": "resp_0"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"]


async def test_06_get_and_delete_a_response(client: httpx.AsyncClient) -> None:
    made = (await client.post("/v1/responses", json={"model": "base", "input": "hi"})).json()
    path = f"/v1/responses/{made['id']}"
    assert (await client.get(path)).json()["output"] == made["output"]
    items = (await client.get(f"{path}/input_items")).json()
    assert items["data"][0]["content"][0]["text"] == "hi"
    assert (await client.delete(path)).json()["deleted"] is True
    assert (await client.get(path)).status_code == 404


async def test_07_models(client: httpx.AsyncClient) -> None:
    models = {model["id"]: model for model in (await client.get("/v1/models")).json()["data"]}
    assert models["filesystem"]["parent"] == "base"
    assert (await client.get("/v1/models/base")).json() == models["base"]


@pytest.mark.parametrize("path", ["//models", "/v1/models/", "/models", "/v1//models/"])
async def test_08_paths_as_people_type_them(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"{client.base_url}".rstrip("/") + path)).json()["object"] == "list"


async def test_11_tool_choice_none(client: httpx.AsyncClient) -> None:
    assert names(await message(client, ONE, tools=TOOLS, tool_choice="none")) == []


@pytest.mark.parametrize("said", [{}, {"tool_choice": "auto"}])
async def test_12_tool_choice_auto(client: httpx.AsyncClient, said: dict[str, Any]) -> None:
    assert names(await message(client, ONE, tools=TOOLS, **said)) == ["get_weather"]
    assert (await message(client, NONE, tools=TOOLS, **said))["content"]


async def test_13_tool_choice_required(client: httpx.AsyncClient) -> None:
    assert len(names(await message(client, NONE, tools=TOOLS, tool_choice="required"))) == 1


async def test_14_tool_choice_by_name(client: httpx.AsyncClient) -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}
    assert names(await message(client, ONE, tools=TOOLS, tool_choice=choice)) == ["get_time"]


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_15_allowed_tools(client: httpx.AsyncClient, mode: str) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [TIME]}}
    found = await message(client, ONE, tools=TOOLS, tool_choice=choice)
    assert names(found) in ([["get_time"]] if mode == "required" else [["get_time"], []])


async def test_16_a_flat_tool_choice(client: httpx.AsyncClient) -> None:
    body = {"model": "base", "input": ONE, "tools": FLAT, "tool_choice": {"type": "function", "name": "get_time"}}
    assert (await client.post("/v1/responses", json=body)).json()["output"][0]["name"] == "get_time"


@pytest.mark.parametrize("kind", ["custom", "namespace", "web_search"])
async def test_17_tools_that_are_no_functions_are_left_out(client: httpx.AsyncClient, kind: str) -> None:
    assert names(await message(client, ONE, tools=[{"type": kind, kind: {}}, *TOOLS])) == ["get_weather"]
    body = {"model": "base", "input": ONE, "tools": [{"type": kind}, *FLAT]}
    assert (await client.post("/v1/responses", json=body)).json()["output"][0]["name"] == "get_weather"


@pytest.mark.parametrize("strict", [True, False, None])
async def test_18_strict(client: httpx.AsyncClient, strict: bool | None) -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": strict}}
    found = await message(client, ONE, tools=[tool])
    assert json.loads(found["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}


async def test_19_parallel_tool_calls(client: httpx.AsyncClient) -> None:
    assert names(await message(client, TWO, tools=TOOLS, parallel_tool_calls=True)) == ["get_weather", "get_time"]
    found = await chunks(client, TWO, tools=TOOLS, parallel_tool_calls=True)
    deltas = [call for chunk in found for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"]) for call in deltas if "id" in call] == [(0, "get_weather"), (1, "get_time")]


async def test_20_parallel_tool_calls_off(client: httpx.AsyncClient) -> None:
    assert names(await message(client, TWO, tools=TOOLS, parallel_tool_calls=False)) == ["get_weather"]


@pytest.mark.parametrize("field", [{"functions": [WEATHER["function"]]}, {"function_call": "auto"}])
async def test_21_legacy_functions_are_refused(client: httpx.AsyncClient, field: dict[str, Any]) -> None:
    assert "tools" in (await refused(client, **field))["message"]


async def test_22_call_ids(client: httpx.AsyncClient) -> None:
    found = [
        call["id"] for _ in range(3) for call in (await message(client, TWO, tools=TOOLS, parallel_tool_calls=True))["tool_calls"]
    ]
    assert len(set(found)) == 6
    assert all(each.startswith("call_") and len(each) <= 40 for each in found)


async def test_23_arguments_are_a_json_string(client: httpx.AsyncClient) -> None:
    arguments = (await message(client, ONE, tools=TOOLS))["tool_calls"][0]["function"]["arguments"]
    assert isinstance(arguments, str)
    assert json.loads(arguments) == {"city": "Paris"}
    assert (await message(client, "call now", tools=TOOLS))["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_24_the_first_delta_names_the_call_and_later_ones_do_not(client: httpx.AsyncClient) -> None:
    deltas = [
        call for chunk in await chunks(client, ONE, tools=TOOLS) for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    first, *later = deltas
    assert {"index", "id", "type", "function"} == set(first)
    assert first["function"]["name"] == "get_weather"
    assert later
    assert all(set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in later)


async def test_25_finish_reasons(client: httpx.AsyncClient) -> None:
    assert (await chat(client, ONE, tools=TOOLS))["choices"][0]["finish_reason"] == "tool_calls"
    assert (await chat(client, NONE))["choices"][0]["finish_reason"] == "stop"
    assert (await chat(client, NONE, max_tokens=2))["choices"][0]["finish_reason"] == "length"
    for text, reason in ((ONE, "tool_calls"), (NONE, "stop")):
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in await chunks(client, text, tools=TOOLS)]
        assert reasons == [*[None] * (len(reasons) - 1), reason]


@pytest.mark.parametrize("text", [ONE, NONE])
async def test_26_the_usage_chunk(client: httpx.AsyncClient, text: str) -> None:
    *others, last = await chunks(client, text, tools=TOOLS, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in others)


async def test_27_no_usage_chunk_unasked(client: httpx.AsyncClient) -> None:
    assert all("usage" not in chunk and chunk["choices"] for chunk in await chunks(client, ONE, tools=TOOLS))


async def test_28_usage(client: httpx.AsyncClient) -> None:
    usage = (await chat(client, ONE, tools=TOOLS))["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert "cached_tokens" in usage["prompt_tokens_details"]
    assert "reasoning_tokens" in usage["completion_tokens_details"]


async def test_29_json_object(client: httpx.AsyncClient) -> None:
    assert json.loads((await message(client, response_format={"type": "json_object"}))["content"])


@pytest.mark.parametrize("tools", [{}, {"tools": TOOLS}])
async def test_30_json_schema(client: httpx.AsyncClient, tools: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": CITY}}
    assert json.loads((await message(client, response_format=form, **tools))["content"]) == {"city": "Paris"}


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
async def test_31_parts_that_cannot_be_read_are_named(client: httpx.AsyncClient, kind: str) -> None:
    error = await refused(client, messages=user([{"type": "text", "text": "what is this?"}, {"type": kind, kind: {}}]))
    assert error["param"] == "messages.0.content.1"
    assert kind in error["message"]


PIXELS = "iVBORw0KGgo" * 75_000
PNG = f"data:image/png;base64,{PIXELS}"
CALL = {"name": "get_weather", "arguments": "{}"}
SHOWN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "tools": TOOLS,
        "messages": [
            *user(ONE),
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": CALL}]},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
        ],
    },
    "/v1/responses": {
        "tools": FLAT,
        "input": [
            *user(ONE),
            {"type": "function_call", "call_id": "a", **CALL},
            {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_image", "image_url": PNG}]},
        ],
    },
    "/v1/messages": {
        "tools": [{"name": "get_weather", "input_schema": CITY}],
        "max_tokens": 100,
        "messages": [
            *user(ONE),
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "get_weather", "input": {}}]},
            *user([{"type": "tool_result", "tool_use_id": "a", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}},
            ]}]),
        ],
    },
}  # fmt: skip


def lines_in(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.rglob("*.jsonl"))


@pytest.mark.parametrize("path", SHOWN)
async def test_31_media_in_results_of_tools_are_told_and_neither_shown_nor_kept(path: str, tmp_path: Path) -> None:
    async with running_stack(decision_log=tmp_path) as own, httpx.AsyncClient(base_url=own.url, timeout=30) as http:
        reply = await http.post(path, json={"model": "base", "stream": True, **SHOWN[path]})
        plain = await http.post("/v1/chat/completions", json={"model": "base", "messages": user(NONE)})
        metrics = (await http.get("/metrics")).text
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-agentflux-not-shown"] == "1"
    assert "x-agentflux-not-shown" not in plain.headers
    assert "agentflux_media_not_shown_total 1.0" in metrics
    answer = next(body for body in own.engine.bodies if "messages" in body)
    for kept in (json.dumps(answer), lines_in(tmp_path)):
        assert "[image/png, 604 KiB, not shown: this model reads text]" in kept
        assert PIXELS[:100] not in kept


async def test_32_the_newer_token_limit_wins(client: httpx.AsyncClient, stack: Stack) -> None:
    await chat(client, max_tokens=5, max_completion_tokens=2)
    assert stack.engine.bodies[-1]["max_tokens"] == 2


async def test_33_n(client: httpx.AsyncClient) -> None:
    assert [choice["index"] for choice in (await chat(client, n=3))["choices"]] == [0, 1, 2]
    assert (await refused(client, n=2, tools=TOOLS))["param"] == "n"


async def test_34_seed(client: httpx.AsyncClient, stack: Stack) -> None:
    await chat(client, seed=7)
    assert stack.engine.bodies[-1]["seed"] == 7
    found = [await message(client, ONE, tools=TOOLS, seed=7) for _ in range(2)]
    assert found[0]["tool_calls"][0]["function"] == found[1]["tool_calls"][0]["function"]


async def test_35_logprobs(client: httpx.AsyncClient) -> None:
    choice = (await chat(client, logprobs=True, top_logprobs=1))["choices"][0]
    assert choice["logprobs"]["content"][0]["token"]
    assert (await chat(client))["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stop", ["are", ["are", "xyz"], ["Observation:", "Calling tools:"]])
async def test_36_stop(client: httpx.AsyncClient, stop: Any) -> None:
    text = (await message(client, stop=stop))["content"]
    assert text == ("You said: How are you?" if "Observation:" in stop else "You said: How ")


async def test_37_fields_without_effect_are_accepted(client: httpx.AsyncClient) -> None:
    fields = {"user": "ann", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "safety_identifier": "x"}
    await chat(client, **fields, prompt_cache_key="k")
    body = (await client.post("/v1/responses", json={"model": "base", "input": "hi", "metadata": {"a": "b"}})).json()
    assert body["metadata"] == {"a": "b"}


async def test_38_unknown_fields(client: httpx.AsyncClient) -> None:
    await chat(client, temprature=0.5)
    async with running_stack(strict_fields=True) as strict, httpx.AsyncClient(base_url=strict.url) as http:
        error = await refused(http, temprature=0.5)
        assert error["param"] == "temprature"
        assert "temperature" in error["message"]
        await chat(http, temperature=0.5, metadata={}, user="ann", logit_bias={})


async def test_39_reasoning_effort_and_verbosity_are_accepted(client: httpx.AsyncClient) -> None:
    await chat(client, reasoning_effort="low", verbosity="low")


async def test_40_reasoning_is_not_fed_back(client: httpx.AsyncClient, stack: Stack) -> None:
    history = [*user("hi"), {"role": "assistant", "content": "Hello.", "reasoning_content": "secret thought"}, *user("and you?")]
    await chat(client, messages=history)
    assert "secret thought" not in json.dumps(stack.engine.bodies[-1])


async def test_41_the_refusal_field(client: httpx.AsyncClient) -> None:
    assert (await message(client))["refusal"] is None


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/nothing", b"", 404),
        ("PUT", "/v1/models", b"", 405),
        ("POST", "/v1/chat/completions", b"{}", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b" " * 9_000_000, 413),
        ("POST", "/v1/responses", b"{}", 400),
        ("GET", "/v1/models/nobody", b"", 404),
    ],
)
async def test_42_43_every_error_has_the_envelope(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, status: int
) -> None:
    reply = await client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert {"message", "type", "param", "code"} == set(reply.json()["error"])


@pytest.mark.parametrize("content", [b"{", b'{"a":NaN,}', b"\xff\xfe", b'"x"', b""])
async def test_44_malformed_json_is_a_400(client: httpx.AsyncClient, content: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions", "/v1/feedback"):
        reply = await client.post(path, content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 400, (path, reply.text)


async def test_45_an_unknown_model_names_the_nearest(client: httpx.AsyncClient) -> None:
    error = await refused(client, 404, model="filesytem")
    assert error["code"] == "model_not_found"
    assert "'filesystem'" in error["message"]


async def test_46_a_prompt_that_is_too_long(client: httpx.AsyncClient) -> None:
    body = {"model": "base", "messages": user("word " * 20_000), "tools": TOOLS}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_48_no_engine_is_a_503_that_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    async with running_stack(engine_url="http://127.0.0.1:9") as down, httpx.AsyncClient(base_url=down.url) as http:
        reply = await http.post("/v1/chat/completions", json={"model": "base", "messages": user("hi")})
        assert reply.status_code == 503
        assert 0 < int(reply.headers["retry-after"]) <= 120
        assert int(reply.headers["retry-after-ms"]) > 0
        assert reply.headers["x-should-retry"] == "true"


async def test_50_request_ids(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
    assert (await client.get("/v1/nothing")).headers["x-request-id"]


async def test_51_openai_headers(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/chat/completions", json={"model": "base", "messages": user("hi")})
    assert int(reply.headers["openai-processing-ms"]) >= 0
    assert reply.headers["openai-version"] == "2020-10-01"


async def test_55_cors() -> None:
    ask = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    async with running_stack(cors_origins=("https://chat.example",)) as open_to, httpx.AsyncClient(base_url=open_to.url) as http:
        reply = await http.options("/v1/chat/completions", headers=ask)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "https://chat.example")
        stranger = await http.options("/v1/chat/completions", headers={**ask, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_56_head_options_and_405(client: httpx.AsyncClient) -> None:
    assert (await client.head("/v1/models")).status_code == 200
    for method in ("OPTIONS", "DELETE"):
        reply = await client.request(method, "/v1/chat/completions")
        assert reply.status_code == 405
        assert reply.json()["error"]["message"]
        assert "POST" in reply.headers["allow"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("br", brotli.compress), ("identity", bytes)])
async def test_57_packed_and_large_bodies(client: httpx.AsyncClient, encoding: str, pack: Any) -> None:
    tool = {**WEATHER, "function": {**WEATHER["function"], "description": "Ü" * 1_200_000}}
    body = {"model": "base", "messages": user("hi"), "tools": [tool], "tool_choice": "none"}
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    reply = await client.post("/v1/chat/completions", content=pack(json.dumps(body).encode()), headers=headers)
    assert reply.status_code == 200, reply.text


async def test_58_developer_is_system_and_the_order_is_kept(client: httpx.AsyncClient, stack: Stack) -> None:
    history = [
        {"role": "system", "content": "A"},
        {"role": "developer", "content": "B"},
        *user("hi"),
        {"role": "system", "content": "C"},
    ]
    await chat(client, messages=[*history, *user("go")])
    roles = [(m["role"], m["content"]) for m in stack.engine.bodies[-1]["messages"]]
    assert roles == [("system", "A"), ("system", "B"), ("user", "hi"), ("system", "C"), ("user", "go")]


async def test_59_parts_in_every_role(client: httpx.AsyncClient, stack: Stack) -> None:
    def parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}, {"type": "text", "text": "!"}]

    asked, assistant, tool = called(("c1", "get_weather"))
    history = [{"role": "system", "content": parts("S")}, {**asked, "content": parts("U")}]
    history += [{**assistant, "content": parts("A")}, {**tool, "content": parts("T")}]
    await chat(client, messages=history)
    assert [m["content"] for m in stack.engine.bodies[-1]["messages"]] == ["S\n!", "U\n!", "A\n!", "T\n!"]


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
async def test_60_a_turn_of_calls_needs_no_content(client: httpx.AsyncClient, content: dict[str, Any]) -> None:
    asked, assistant, tool = called(("c1", "get_weather"))
    assistant = {key: value for key, value in assistant.items() if key != "content"} | content
    found = await message(client, messages=[asked, assistant, tool], tools=TOOLS)
    assert found["content"] == "The result is 12 degrees"


async def test_61_tool_messages(client: httpx.AsyncClient) -> None:
    assert (await message(client, messages=called(("c1", "get_weather"))))["content"] == "The result is 12 degrees"
    stray = [*user("hi"), {"role": "tool", "tool_call_id": "nobody", "content": "?"}]
    assert (await refused(client, messages=stray))["param"] == "messages.1.tool_call_id"


async def test_62_long_histories_many_tools_and_odd_names(client: httpx.AsyncClient) -> None:
    history = [part for i in range(100) for part in ({"role": "user", "content": str(i)}, {"role": "assistant", "content": "ok"})]
    assert (await message(client, messages=[*history, *user("bye")]))["content"] == "You said: bye"
    many = [{"type": "function", "function": {"name": f"tool_{i}"}} for i in range(128)]
    assert names(await message(client, "call tool_77", tools=many)) == ["tool_77"]
    assert "128" in (await refused(client, tools=[*many, NOW]))["message"]
    long, foreign = "a" * 64, "wetter_für_größe"
    for name in (long, foreign):
        tool = {"type": "function", "function": {"name": name}}
        assert names(await message(client, "go", tools=[tool], tool_choice="required")) == [name]
