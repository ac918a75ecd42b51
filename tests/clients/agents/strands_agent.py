"""strands-agents with its OpenAIModel, which streams whatever is asked for, and sends content as parts."""

from __future__ import annotations

import asyncio
import json

from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell
from strands import Agent, tool
from strands.models.openai import OpenAIModel


async def stream_of(agent):
    pieces = 0
    async for event in agent.stream_async(QUESTION):
        pieces += "data" in event or "current_tool_use" in event
        result = event.get("result")
    return result, pieces


def ask(*, stream: bool, parallel: bool):
    model = OpenAIModel(model_id=MODEL, params={"parallel_tool_calls": True} if parallel else {})
    agent = Agent(model=model, tools=[tool(get_weather), tool(get_time)], system_prompt="Be brief.", callback_handler=None)
    result, pieces = asyncio.run(stream_of(agent)) if stream else (agent(QUESTION), None)
    uses = [[part["toolUse"] for part in said["content"] if "toolUse" in part] for said in agent.messages]
    rounds = [[(use["toolUseId"], use["name"], json.dumps(use["input"])) for use in calls] for calls in uses]
    tokens = result.metrics.accumulated_usage["totalTokens"]
    return run(rounds, str(result).strip(), tokens=tokens, pieces=pieces)


def describe():
    # Its way to a structured output is a tool of its own.
    agent = Agent(model=OpenAIModel(model_id=MODEL), callback_handler=None)
    return agent(STRUCTURED_QUESTION, structured_output_model=City).structured_output.model_dump()


tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=describe(),
)
