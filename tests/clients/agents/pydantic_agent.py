"""pydantic-ai, over the API named as the argument: `chat`, or `responses`, which `openai:` means."""

from __future__ import annotations

import asyncio
import sys

from pydantic_ai import Agent, AgentRunResultEvent, PartDeltaEvent, PartStartEvent
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell

model = OpenAIChatModel(MODEL) if sys.argv[1] == "chat" else f"openai:{MODEL}"
tools = [get_weather, get_time]


async def stream_of(agent, question, settings):
    pieces = 0
    async with agent.run_stream_events(question, model_settings=settings) as events:
        async for event in events:
            pieces += isinstance(event, PartStartEvent | PartDeltaEvent)
            if isinstance(event, AgentRunResultEvent):
                return event.result, pieces
    raise RuntimeError("the stream has no result")


def ask(*, stream: bool, parallel: bool):
    agent = Agent(model, tools=tools, instructions="Be brief.")
    settings = {"parallel_tool_calls": True} if parallel else {}
    pieces = None
    if stream:
        result, pieces = asyncio.run(stream_of(agent, QUESTION, settings))
    else:
        result = agent.run_sync(QUESTION, model_settings=settings)
    replies = [message for message in result.all_messages() if isinstance(message, ModelResponse)]
    rounds = [
        [(part.tool_call_id, part.tool_name, part.args_as_json_str()) for part in reply.parts if isinstance(part, ToolCallPart)]
        for reply in replies
    ]
    return run(rounds, result.output, tokens=result.usage.total_tokens, pieces=pieces)


def describe():
    # Its way to a structured output is a tool of its own, which it requires.
    agent = Agent(model, output_type=City)
    return agent.run_sync(STRUCTURED_QUESTION).output.model_dump()


tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=describe(),
)
