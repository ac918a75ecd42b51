"""llama-index's agent with OpenAILike: its class `OpenAI` refuses the names of models it does not know."""

from __future__ import annotations

import asyncio
import json
import os

from llama_index.core.agent.workflow import AgentOutput, AgentStream, FunctionAgent
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike
from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell

llm = OpenAILike(
    model=MODEL,
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
)


async def ask(*, stream: bool, parallel: bool):
    agent = FunctionAgent(tools=[get_weather, get_time], llm=llm, streaming=stream, allow_parallel_tool_calls=parallel)
    running = agent.run(QUESTION)
    rounds, pieces = [], 0
    async for event in running.stream_events():
        pieces += isinstance(event, AgentStream)
        if isinstance(event, AgentOutput):
            rounds.append([(call.tool_id, call.tool_name, json.dumps(call.tool_kwargs)) for call in event.tool_calls])
    output = await running
    return run(rounds, output.response.content, pieces=pieces if stream else None)


def describe():
    return llm.structured_predict(City, PromptTemplate(STRUCTURED_QUESTION)).model_dump()


async def main():
    tell(
        whole=await ask(stream=False, parallel=False),
        streamed=await ask(stream=True, parallel=False),
        whole_parallel=await ask(stream=False, parallel=True),
        streamed_parallel=await ask(stream=True, parallel=True),
        structured=await asyncio.to_thread(describe),
    )


asyncio.run(main())
