"""openai-agents, over the API named as the argument: `responses`, its default, or `chat_completions`."""

from __future__ import annotations

import asyncio
import sys

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from agents.items import ToolCallItem
from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell

set_tracing_disabled(True)
set_default_openai_api(sys.argv[1])
tools = [function_tool(get_weather), function_tool(get_time)]


def agent(*, parallel: bool = False, **options) -> Agent:
    settings = ModelSettings(parallel_tool_calls=parallel or None, include_usage=True)
    return Agent(name="guide", instructions="Be brief.", model=MODEL, tools=tools, model_settings=settings, **options)


async def ask(*, stream: bool, parallel: bool):
    pieces = 0
    if stream:
        result = Runner.run_streamed(agent(parallel=parallel), QUESTION)
        async for event in result.stream_events():
            pieces += event.type == "raw_response_event"
    else:
        result = await Runner.run(agent(parallel=parallel), QUESTION)
    rounds = [
        [(item.call_id, item.name, item.arguments) for item in response.output if item.type == "function_call"]
        for response in result.raw_responses
    ]
    assert sum(isinstance(item, ToolCallItem) for item in result.new_items) == sum(map(len, rounds))
    tokens = result.context_wrapper.usage.total_tokens
    return run(rounds, result.final_output, tokens=tokens, pieces=pieces if stream else None)


async def main():
    described = await Runner.run(agent(output_type=City), STRUCTURED_QUESTION)
    tell(
        whole=await ask(stream=False, parallel=False),
        streamed=await ask(stream=True, parallel=False),
        whole_parallel=await ask(stream=False, parallel=True),
        streamed_parallel=await ask(stream=True, parallel=True),
        structured=described.final_output.model_dump(),
    )


asyncio.run(main())
