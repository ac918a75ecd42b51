"""Agents on real client libraries, changed only in base URL and key, against the whole way from gateway to engine.

`agents/question.py` has what they are asked: a question that takes two tools, and one whose answer has a structure.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.clients.environments import node_agent, python_agent
from tests.stack import Stack, running_stack

KEY = "sk-a-key-for-real-clients"
AGENT_S = 180

AGENTS: dict[str, tuple[str, ...]] = {
    "openai-python-chat": ("openai3", "openai_chat.py"),
    "openai-python-responses": ("openai3", "openai_responses.py"),
    "openai-agents-responses": ("openai3", "openai_agents.py", "responses"),
    "openai-agents-chat": ("openai3", "openai_agents.py", "chat_completions"),
    "langchain-chat": ("openai3", "langchain_agent.py"),
    "langchain-responses": ("openai3", "langchain_agent.py", "responses"),
    "pydantic-ai-chat": ("openai3", "pydantic_agent.py", "chat"),
    "pydantic-ai-responses": ("openai3", "pydantic_agent.py", "responses"),
    "agent-framework-responses": ("openai3", "agent_framework_agent.py"),
    "anthropic-messages": ("openai3", "anthropic_messages.py"),
    "llama-index-chat": ("openai2", "llama_index_agent.py"),
    "instructor-chat": ("openai2", "instructor_models.py"),
    "strands-chat": ("openai2", "strands_agent.py"),
    "openai-node-chat": ("node", "openai_chat.mjs"),
    "openai-node-responses": ("node", "openai_responses.mjs"),
    "ai-sdk-chat": ("node", "ai_sdk.mjs", "openai-compatible"),
    "ai-sdk-responses": ("node", "ai_sdk.mjs", "openai"),
    "anthropic-node-messages": ("node", "anthropic_tools.mjs"),
}

WEATHER, TIME = ("get_weather", {"city": "Paris"}), ("get_time", {"city": "Paris", "hours_ahead": 3})
# Each reply's calls: one after the other unless the client asks for parallel ones.
ROUNDS = {
    "whole": [[WEATHER], [TIME]],
    "streamed": [[WEATHER], [TIME]],
    "whole_parallel": [[WEATHER, TIME]],
    "streamed_parallel": [[WEATHER, TIME]],
}

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(api_key=KEY) as running:
        yield running


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent_notices_nothing_but_another_base_url_and_key(agent, stack, tmp_path, caplog):
    with structlog.testing.capture_logs() as logged:
        told = await tell_of(agent, stack, tmp_path)
    structured = told.pop("structured")
    assert structured == {"name": "Paris", "population": 3}
    assert told.keys() == (set() if agent.startswith("instructor") else ROUNDS.keys())
    for way, run in told.items():
        called = [[(name, json.loads(arguments)) for _, name, arguments in calls] for calls in run["rounds"]]
        assert called == ROUNDS[way], way
        # Parallel calls are asked for in this order; some clients (LangChain) then run them on threads, in any order.
        executed = [(name, arguments) for name, arguments in run["executed"]]
        assert sorted(executed, key=str) == sorted([WEATHER, TIME], key=str), way
        assert run["text"] == "The result is noon and 3 hours in Paris", way
        assert (run["pieces"] or 0) > 5 if way.startswith("streamed") else run["pieces"] is None, way
    ids = [call[0] for run in told.values() for calls in run["rounds"] for call in calls]
    assert len(set(ids)) == len(ids)
    for whole, streamed in (("whole", "streamed"), ("whole_parallel", "streamed_parallel")):
        if whole in told:
            assert told[whole]["tokens"] == told[streamed]["tokens"] != 0
    assert [entry for entry in logged if entry["log_level"] in ("error", "critical")] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def tell_of(agent: str, stack: Stack, home: Path) -> dict[str, Any]:
    """What the agent's process told: its last line."""
    kind, script, *options = AGENTS[agent]
    command = (
        await asyncio.to_thread(node_agent, script) if kind == "node" else await asyncio.to_thread(python_agent, script, kind)
    )
    address = {
        "OPENAI_BASE_URL": f"{stack.url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": stack.url,
        "ANTHROPIC_API_KEY": KEY,
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        # None of the surrounding variables: proxies, keys and tracing are those of whoever runs the tests.
        env={"PATH": os.environ["PATH"], "HOME": str(home), **address},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(AGENT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{agent}:\n{err.decode(errors='replace')[-3000:]}"
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told
