"""`truncation: auto` of the Responses API: the oldest messages are left out, as few as it takes for the rest to fit.

Source: OpenAI's API reference, "Create a model response": items are dropped from the beginning of the conversation. Here system
messages and what the user said last stay; where not even these fit, the request is refused as without truncation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from services.gateway.wire.encoding import as_json
from services.gateway.wire.requests import ChatRequest
from services.shared.contracts.tools import JsonObject

# Share of the context that a reply gets whose length the request does not limit.
REPLY_SHARE = 8


async def fitted(request: ChatRequest, *, context: int, count: Callable[[ChatRequest], Awaitable[int]]) -> ChatRequest:
    """The request with the messages that fit into `context` tokens beside the reply; `count` tells the tokens of a request."""
    # A limit beyond the context is none: clients send what the largest models can.
    limit = request.max_tokens or context
    room = context - (limit if limit < context else context // REPLY_SHARE)
    # No token is shorter than a byte: most requests need no counting.
    if len(as_json([request.messages, [tool.openai() for tool in request.tools]])) <= room or await count(request) <= room:
        return request
    shorter = [replace(request, messages=messages) for messages in shortened(request.messages)]
    # The shorter, the fewer tokens: a handful of counts finds the longest that fits.
    low, high = 0, len(shorter)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if await count(shorter[middle]) <= room else (middle + 1, high)
    return shorter[low] if low < len(shorter) else request


def shortened(messages: Sequence[JsonObject]) -> list[list[JsonObject]]:
    """The conversation without its oldest messages, ever shorter. Results never stand without their call."""
    said = [index for index, message in enumerate(messages) if message["role"] == "user"]
    last = said[-1] if said else len(messages)
    beginnings = [index for index, message in enumerate(messages) if message["role"] in ("user", "assistant")][1:]
    return [
        [message for index, message in enumerate(messages) if index >= begin or index == last or message["role"] == "system"]
        for begin in beginnings
    ]
