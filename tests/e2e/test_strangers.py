"""Clients who know nothing of us: their own tools, every tool choice, streamed and not, and what they are refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from deploy.local.plan import REPOSITORY
from tests.deployment import Deployment, eventually

pytestmark = pytest.mark.real

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "get_time", "description": "The time now"}}
TOOLS: list[Any] = [WEATHER, CLOCK]
ASK: list[Any] = [{"role": "user", "content": "Is it raining in London right now?"}]


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=deployment.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def only_call(completion: Any) -> tuple[str, dict[str, Any]]:
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    return call.function.name, json.loads(call.function.arguments)


def test_tools_that_nobody_registered_are_called_with_valid_arguments(deployment: Deployment, client: openai.OpenAI) -> None:
    name, arguments = only_call(client.chat.completions.create(model=deployment.model, messages=ASK, tools=TOOLS))
    assert name == "get_weather"
    assert arguments["city"]
    assert arguments["unit"] in ("celsius", "fahrenheit")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"get_time"}),
        ({"type": "function", "function": {"name": "get_weather"}}, {"get_weather"}),
    ],
)
def test_a_choice_that_asks_for_a_tool_gets_one(
    deployment: Deployment, client: openai.OpenAI, choice: Any, expected: set[str], stream: bool
) -> None:
    asked: dict[str, Any] = {"model": deployment.model, "messages": ASK, "tools": TOOLS, "tool_choice": choice}
    if stream:
        with client.chat.completions.stream(**asked) as chunks:
            name, arguments = only_call(chunks.get_final_completion())
    else:
        name, arguments = only_call(client.chat.completions.create(**asked))
    assert name in expected
    assert arguments == {} if name == "get_time" else arguments["city"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_without_tools_the_base_model_answers(
    deployment: Deployment, client: openai.OpenAI, tools: dict[str, Any], stream: bool
) -> None:
    asked: dict[str, Any] = {"model": deployment.model, "messages": ASK, "max_tokens": 8, "temperature": 0, "seed": 1, **tools}
    if stream:
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens <= 8
        assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    else:
        completion = client.chat.completions.create(**asked)
        text = completion.choices[0].message.content or ""
        assert completion.choices[0].message.tool_calls is None
    assert text


def test_models_are_listed_with_their_parents(deployment: Deployment, client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    adapters = {name for name in models if "--" in name}
    toolsets = {path.parent.name for path in (REPOSITORY / "deploy" / "toolsets").glob("*/tools.json")}
    assert "filesystem" in toolsets
    assert set(models) - adapters == {deployment.model, *toolsets}
    assert {models[name].model_dump()["parent"] for name in adapters} <= {deployment.model}
    assert client.models.retrieve("filesystem").model_dump()["parent"] == deployment.model


def test_a_text_longer_than_the_context_is_refused_and_not_cut(deployment: Deployment, client: openai.OpenAI) -> None:
    long: list[Any] = [{"role": "user", "content": "word " * 200_000}]
    for tools in ({}, {"tools": TOOLS}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=deployment.model, messages=long, **tools)  # type: ignore[call-overload]
        assert refused.value.code == "context_length_exceeded"


def test_a_body_of_a_megabyte_is_read(deployment: Deployment, client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=deployment.model, messages=ASK, max_tokens=2, metadata={"note": "x"}, extra_body={"padding": "x" * 1_000_000}
    )
    assert completion.choices[0].message.content is not None


def test_an_unknown_model_is_refused_with_the_nearest_name(deployment: Deployment, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="filesystm", messages=ASK)
    assert refused.value.code == "model_not_found"
    assert "'filesystem'" in refused.value.message


def schema(**properties: Any) -> list[Any]:
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


@pytest.mark.parametrize(
    ("tools", "code"),
    [
        (schema(a={"type": "nonsense"}), "invalid_tool_schema"),
        (schema(a={"type": "string", "minLength": 5, "maxLength": 2}), "invalid_tool_schema"),
        (schema(a={"type": "string", "pattern": "^(?=.*z)[a-c]$"}), "arguments_invalid"),
    ],
)
def test_a_schema_that_cannot_be_satisfied_is_a_named_error(
    deployment: Deployment, client: openai.OpenAI, tools: list[Any], code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=deployment.model, messages=ASK, tools=tools, tool_choice="required")
    assert refused.value.status_code in (400, 422)
    assert refused.value.code == code
    assert "'f'" in refused.value.message


def test_malformed_bodies_get_the_error_object(deployment: Deployment) -> None:
    for body in (b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 1}', b'{"model": "x", "messages": "hi"}'):
        reply = httpx.post(f"{deployment.base_url}/chat/completions", content=body)
        assert reply.status_code == 400, body
        assert set(reply.json()["error"]) == {"message", "type", "code", "param"}
        assert reply.headers["x-request-id"]


def test_a_client_that_leaves_stops_the_work(deployment: Deployment) -> None:
    """What is cancelled at the gateway is cancelled in the engine, too."""

    def running() -> float:
        lines = deployment.get("engine", "/metrics/vllm").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{"))

    body = json.dumps(
        {"model": deployment.model, "messages": [{"role": "user", "content": "Tell a long story."}], "stream": True}
    )
    with socket.create_connection(("127.0.0.1", deployment.settings.port("gateway"))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body.encode())
        assert b"200 OK" in connection.recv(65536)
        eventually(lambda: running() >= 1, "the engine works on it")
    eventually(lambda: running() == 0, "the engine has stopped", timeout_s=5)
