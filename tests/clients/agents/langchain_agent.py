"""langchain's agent with langchain-openai, over chat completions or, with the argument `responses`, over Responses."""

from __future__ import annotations

import json
import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from question import MODEL, QUESTION, STRUCTURED_QUESTION, City, get_time, get_weather, run, tell

RESPONSES = sys.argv[1:] == ["responses"]
question = {"messages": [{"role": "user", "content": QUESTION}]}


def ask(*, stream: bool, parallel: bool):
    options = {"model_kwargs": {"parallel_tool_calls": True}} if parallel else {}
    model = ChatOpenAI(model=MODEL, use_responses_api=RESPONSES, stream_usage=True, **options)
    agent = create_agent(model, tools=[get_weather, get_time])
    pieces = 0
    if stream:
        for mode, data in agent.stream(question, stream_mode=["messages", "values"]):
            if mode == "messages":
                pieces += isinstance(data[0], AIMessageChunk)
            else:
                messages = data["messages"]
    else:
        messages = agent.invoke(question)["messages"]
    said = [message for message in messages if isinstance(message, AIMessage)]
    rounds = [[(call["id"], call["name"], json.dumps(call["args"])) for call in message.tool_calls] for message in said]
    tokens = sum(message.usage_metadata["total_tokens"] for message in said)
    return run(rounds, said[-1].text, tokens=tokens, pieces=pieces if stream else None)


def describe():
    model = ChatOpenAI(model=MODEL, use_responses_api=RESPONSES)
    return {
        way: model.with_structured_output(City, method=way).invoke(STRUCTURED_QUESTION).model_dump()
        for way in ("json_schema", "function_calling")
    }


structured = describe()
assert structured["json_schema"] == structured["function_calling"], structured
tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=structured["json_schema"],
)
