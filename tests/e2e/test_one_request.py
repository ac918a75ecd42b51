"""A guided tour: one request on its way through every real part, as an agent sees it.

Read it from top to bottom. Everything here is real: the engine runs a model, the sandbox runs an MCP server, the client is the
official `openai` SDK, and nothing of it knows of AgentFlux but the base URL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec
from tests.deployment import Deployment

pytestmark = [pytest.mark.real, pytest.mark.anyio]

QUESTION: list[Any] = [{"role": "user", "content": "Read the file README.txt"}]


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=deployment.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


async def test_one_request_from_the_question_to_the_answer(deployment: Deployment, client: openai.OpenAI) -> None:
    # The tools of a toolset: an MCP server, started in a sandbox, was asked what it can do.
    sandbox = SandboxClient(f"127.0.0.1:{deployment.settings.port('sandbox')}")
    tools: list[Any] = [tool.openai() for tool in await sandbox.list_tools("filesystem")]
    assert "read_file" in [tool["function"]["name"] for tool in tools]

    # The request. The gateway asks the selector which tool (one vote over all names and the answer label), and the argument
    # service with which arguments (constrained by the tool's own JSON Schema).
    raw = client.chat.completions.with_raw_response.create(model=deployment.model, messages=QUESTION, tools=tools)
    reply = raw.parse()
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "read_text_file"
    arguments = json.loads(call.function.arguments)
    assert arguments["path"] == "README.txt"

    # How sure the vote was. The probabilities of all names sum to 1; here are the likeliest five.
    vote = json.loads(raw.headers["x-agentflux-selection"])
    assert vote["tool"] == call.function.name
    assert vote["toolset"] == "filesystem"
    assert vote["strategy"] == "exact"
    assert 0 < vote["margin"] <= 1
    assert vote["adapter"].startswith("filesystem.select--")
    assert vote["probabilities"][call.function.name] == max(vote["probabilities"].values())

    # The usage is that of both stages.
    assert reply.usage
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens > 0

    # The agent runs the call: in the sandbox, where the workspace is all there is.
    result = await sandbox.call_tool(
        ToolCallSpec(toolset="filesystem", tool=call.function.name, arguments=call.function.arguments, session_id="tour"),
        timeout_s=60,
    )
    seed = (deployment.settings.workspace_dir / "README.txt").read_text()
    assert result.outcome == "ok"
    assert seed.strip() in result.text
    await sandbox.aclose()

    # It shows the result to the model and asks again, until the model answers in words.
    history = [
        *QUESTION,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": result.text},
    ]
    answer = client.chat.completions.create(
        model=deployment.model, messages=history, tools=tools, tool_choice="none", max_tokens=24
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_streamed_and_whole_replies_say_the_same(deployment: Deployment, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "filesystem", "messages": QUESTION, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert whole
    assert whole[0].type == "function"
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed
    assert (streamed[0].function.name, streamed[0].function.arguments) == (whole[0].function.name, whole[0].function.arguments)
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage
    assert final.usage.total_tokens > 0


def test_what_make_up_showed(deployment: Deployment) -> None:
    for part in (
        "filesystem.select--",
        "read_text_file",
        "margin",
        '{"path": "README.txt"',
        "result",
        deployment.base_url,
        "curl",
        "logs",
        "make down",
    ):
        assert part in deployment.shown
