"""The openai SDK, chat completions."""

from __future__ import annotations

import json

import openai
from openai import OpenAI
from pydantic import BaseModel, Field
from question import MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, City, run, tell


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(description="Name of the city.")


class Time(Weather):
    """The time in a city."""

    hours_ahead: int


client = OpenAI()
tools = [
    openai.pydantic_function_tool(Weather, name="get_weather"),
    openai.pydantic_function_tool(Time, name="get_time"),
]


def ask(*, stream: bool, parallel: bool):
    messages = [{"role": "user", "content": QUESTION}]
    rounds, tokens, pieces = [], 0, 0
    for _ in range(5):
        body = {"model": MODEL, "messages": messages, "tools": tools, "parallel_tool_calls": parallel or openai.omit}
        if stream:
            with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as events:
                pieces += sum(event.type == "chunk" for event in events)
                completion = events.get_final_completion()
        else:
            completion = client.chat.completions.create(**body)
        tokens += completion.usage.total_tokens
        message = completion.choices[0].message
        messages.append(message)
        calls = message.tool_calls or []
        rounds.append([(call.id, call.function.name, call.function.arguments) for call in calls])
        for call in calls:
            result = TOOLS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if not calls:
            return run(rounds, message.content, tokens=tokens, pieces=pieces if stream else None)
    raise RuntimeError(f"no answer after {rounds}")


def describe():
    messages = [{"role": "user", "content": STRUCTURED_QUESTION}]
    completion = client.chat.completions.parse(model=MODEL, messages=messages, tools=tools, response_format=City)
    return completion.choices[0].message.parsed.model_dump()


tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=describe(),
)
