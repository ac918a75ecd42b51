"""The anthropic SDK, over /v1/messages."""

from __future__ import annotations

import json

from anthropic import Anthropic
from question import MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, City, run, tell

client = Anthropic()
CITY = {"type": "string", "description": "Name of the city."}


def tool(name, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": TOOLS[name].__doc__, "input_schema": schema}


tools = [tool("get_weather", city=CITY), tool("get_time", city=CITY, hours_ahead={"type": "integer"})]


def ask(*, stream: bool, parallel: bool):
    messages = [{"role": "user", "content": QUESTION}]
    choice = {"type": "auto", "disable_parallel_tool_use": not parallel}
    rounds, tokens, pieces = [], 0, 0
    for _ in range(5):
        body = {"model": MODEL, "max_tokens": 100, "messages": messages, "tools": tools, "tool_choice": choice}
        if stream:
            with client.messages.stream(**body) as events:
                pieces += sum(1 for _ in events)
                message = events.get_final_message()
        else:
            message = client.messages.create(**body)
        tokens += message.usage.input_tokens + message.usage.output_tokens
        calls = [block for block in message.content if block.type == "tool_use"]
        rounds.append([(call.id, call.name, json.dumps(call.input)) for call in calls])
        if not calls:
            return run(rounds, message.content[0].text, tokens=tokens, pieces=pieces if stream else None)
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": TOOLS[call.name](**call.input)} for call in calls]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    raise RuntimeError(f"no answer after {rounds}")


def describe():
    form = {"name": "city", "description": "A city.", "input_schema": City.model_json_schema()}
    message = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": STRUCTURED_QUESTION}],
        tools=[form],
        tool_choice={"type": "tool", "name": "city"},
    )
    return message.content[0].input


tell(
    whole=ask(stream=False, parallel=False),
    streamed=ask(stream=True, parallel=False),
    whole_parallel=ask(stream=False, parallel=True),
    streamed_parallel=ask(stream=True, parallel=True),
    structured=describe(),
)
