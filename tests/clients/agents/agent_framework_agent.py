"""Microsoft's agent-framework over Responses: after a call it sends the result alone, and its history is the gateway's."""

from __future__ import annotations

import asyncio

from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient
from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell

agent = Agent(OpenAIChatClient(model=MODEL), instructions="Be brief.", tools=[get_weather, get_time])


async def ask(*, stream: bool, parallel: bool):
    options = {"allow_multiple_tool_calls": True} if parallel else {}
    pieces = None
    if stream:
        streaming = agent.run(QUESTION, stream=True, options=options)
        pieces = len([piece async for piece in streaming])
        response = await streaming.get_final_response()
    else:
        response = await agent.run(QUESTION, options=options)
    rounds = [
        [(call.call_id, call.name, call.arguments) for call in message.contents if call.type == "function_call"]
        for message in response.messages
    ]
    return run(rounds, response.messages[-1].text, tokens=response.usage_details["total_token_count"], pieces=pieces)


async def main():
    described = await agent.run(STRUCTURED_QUESTION, options={"response_format": City})
    tell(
        whole=await ask(stream=False, parallel=False),
        streamed=await ask(stream=True, parallel=False),
        whole_parallel=await ask(stream=False, parallel=True),
        streamed_parallel=await ask(stream=True, parallel=True),
        structured=described.value.model_dump(),
    )


asyncio.run(main())
