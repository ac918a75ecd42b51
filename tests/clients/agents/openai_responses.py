"""The openai SDK, Responses: histories kept by the client when streamed, by the gateway when not."""

from __future__ import annotations

import json

import openai
from openai import OpenAI
from question import MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, City, run, tell

client = OpenAI()
CITY = {"type": "string", "description": "Name of the city."}


def function(name, description, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": True}


tools = [
    function("get_weather", "The weather in a city.", city=CITY),
    function("get_time", "The time in a city.", city=CITY, hours_ahead={"type": "integer"}),
]


def ask(*, stream: bool, parallel: bool):
    items = [{"role": "user", "content": QUESTION}]
    rounds, tokens, pieces, previous = [], 0, 0, openai.omit
    for _ in range(5):
        body = {"model": MODEL, "input": items, "tools": tools, "parallel_tool_calls": parallel or openai.omit}
        if stream:
            with client.responses.stream(**body, store=False) as events:
                pieces += sum(1 for _ in events)
                response = events.get_final_response()
            items = [*items, *(item.to_dict() for item in response.output)]
        else:
            response = client.responses.create(**body, previous_response_id=previous)
            previous, items = response.id, []
        tokens += response.usage.total_tokens
        calls = [item for item in response.output if item.type == "function_call"]
        rounds.append([(call.call_id, call.name, call.arguments) for call in calls])
        for call in calls:
            result = TOOLS[call.name](**json.loads(call.arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
        if not calls:
            return run(rounds, response.output_text, tokens=tokens, pieces=pieces if stream else None)
    raise RuntimeError(f"no answer after {rounds}")


def describe():
    response = client.responses.parse(model=MODEL, input=STRUCTURED_QUESTION, tools=tools, text_format=City)
    return response.output_parsed.model_dump()


tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=describe(),
)
