"""Every door of the gateway, on the real engine, the real adapters and a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.deployment import Deployment

pytestmark = pytest.mark.real
READ = "Read the file README.txt"


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=deployment.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_a_stored_response_is_continued_read_and_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(model="filesystem", input=READ, tool_choice="required")
    call: Any = first.output[0]
    assert (call.type, call.name) == ("function_call", "read_text_file")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Hello from the file."}
    second = client.responses.create(model="filesystem", input=[result], previous_response_id=first.id, max_output_tokens=24)
    assert second.status in ("completed", "incomplete")
    assert second.output[0].type == "message", "with the result at hand the adapters stop calling"
    assert client.responses.retrieve(first.id).output == first.output
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["function_call_output"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_streamed_response_says_the_same(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="filesystem", input=READ, tool_choice="required", store=False)
    with client.responses.stream(model="filesystem", input=READ, tool_choice="required", store=False) as stream:
        kinds = [event.type for event in stream]
        told = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    calls: list[Any] = [whole.output[0], told.output[0]]
    assert len({(call.name, call.arguments) for call in calls}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_client_gets_a_tool_use(deployment: Deployment, stream: bool) -> None:
    with anthropic.Anthropic(base_url=deployment.base_url.removesuffix("/v1"), api_key="none", max_retries=0) as claude:
        ask: dict[str, Any] = {"model": "filesystem", "max_tokens": 64, "messages": [{"role": "user", "content": READ}]}
        ask["tool_choice"] = {"type": "any"}
        if stream:
            with claude.messages.stream(**ask) as told:
                message = told.get_final_message()
        else:
            message = claude.messages.create(**ask)
        counted = claude.messages.count_tokens(model="filesystem", messages=ask["messages"])
    block: Any = message.content[0]
    assert counted.input_tokens > len(READ.split())
    assert (message.stop_reason, block.type, block.name) == ("tool_use", "tool_use", "read_text_file")
    assert block.input["path"]


def test_tokens_are_counted_as_the_engine_reads_them_also_where_it_goes_on_with_an_answer(
    deployment: Deployment, client: openai.OpenAI
) -> None:
    asked: list[Any] = [{"role": "user", "content": "Count to five."}]
    begun = [*asked, {"role": "assistant", "content": "One, two,"}]
    with anthropic.Anthropic(base_url=deployment.base_url.removesuffix("/v1"), api_key="none", max_retries=0) as claude:
        for messages in (asked, begun):
            counted = claude.messages.count_tokens(model=deployment.model, messages=messages).input_tokens
            usage = claude.messages.create(model=deployment.model, max_tokens=4, messages=messages).usage
            assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    response = client.responses.create(model=deployment.model, input="Count to five.", max_output_tokens=4)
    assert response.usage
    assert client.responses.input_tokens.count(input="Count to five.").input_tokens == response.usage.input_tokens


def test_parallel_calls_are_asked_for_until_the_vote_is_done(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="filesystem", messages=[{"role": "user", "content": READ}], parallel_tool_calls=True, tool_choice="required"
    )
    calls = reply.choices[0].message.tool_calls or []
    assert 1 <= len(calls) <= 8
    assert len({call.id for call in calls}) == len(calls)


def test_completions_are_relayed_plain_and_streamed(client: openai.OpenAI, deployment: Deployment) -> None:
    ask: dict[str, Any] = {"model": deployment.model, "prompt": "One, two, three,", "max_tokens": 6, "temperature": 0}
    text = client.completions.create(**ask).choices[0].text
    assert text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True) if chunk.choices) == text


def test_feedback_is_counted_under_its_tool(client: openai.OpenAI, deployment: Deployment) -> None:
    messages: list[Any] = [{"role": "user", "content": READ}]
    reply = client.chat.completions.create(model="filesystem", messages=messages, tool_choice="required")
    told = httpx.post(f"{deployment.base_url}/feedback", json={"response_id": reply.id, "correct": True}, timeout=30)
    assert told.json()["counted"] is True, told.text
    page = httpx.get(f"{deployment.base_url.removesuffix('/v1')}/metrics", timeout=30).text
    assert 'agentflux_feedback_total{correct="true",tool="read_text_file",toolset="filesystem"}' in page


def test_a_reply_says_where_its_time_went(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": READ}]
    raw = client.chat.completions.with_raw_response.create(model="filesystem", messages=messages, tool_choice="required")
    parts = dict(part.split(";dur=") for part in raw.headers["server-timing"].split(", "))
    assert float(parts["select"]) > 0
    assert float(parts["arguments"]) > 0
    assert json.loads(raw.headers["x-agentflux-selection"])["adapter"].startswith("filesystem.select--")
