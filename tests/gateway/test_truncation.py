"""Which messages `truncation: auto` leaves out."""

from __future__ import annotations

import pytest

from services.gateway.truncation import fitted, shortened
from services.gateway.wire.requests import ChatBody, ChatRequest, understood
from services.shared.contracts.tools import JsonObject

pytestmark = pytest.mark.anyio
SYSTEM = {"role": "system", "content": "Be brief."}


def said(role: str, text: str) -> JsonObject:
    return {"role": role, "content": text}


def step(number: int) -> list[JsonObject]:
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": f"call_{number}", "content": f"result {number}"}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, result]


def asked(messages: list[JsonObject], **fields: int) -> ChatRequest:
    body = ChatBody.model_validate({"model": "base", "messages": messages, **fields})
    return understood(body, default_tools=[], session=None)


class Counting:
    """100 tokens a message."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, request: ChatRequest) -> int:
        self.times += 1
        return 100 * len(request.messages)


LONG = [SYSTEM, *(said("assistant" if number % 2 else "user", f"{number} " * 50) for number in range(41))]


@pytest.mark.parametrize("room", [200, 300, 1000, 4000])
async def test_as_few_messages_as_it_takes_are_left_out_and_the_beginning_goes_first(room: int) -> None:
    count = Counting()
    messages = (await fitted(asked(LONG, max_tokens=100), context=room + 100, count=count)).messages
    assert len(messages) == room // 100
    assert messages == [LONG[0], *LONG[-(room // 100 - 1) :]]
    assert count.times <= 8


async def test_what_fits_is_left_alone_and_what_is_short_is_not_even_counted() -> None:
    count = Counting()
    assert (await fitted(asked(LONG, max_tokens=1), context=4201, count=count)).messages == asked(LONG).messages
    assert (await fitted(asked([said("user", "hi")]), context=1000, count=count)).messages == [said("user", "hi")]
    assert count.times == 1


async def test_room_is_left_for_a_reply_of_unknown_length() -> None:
    messages = (await fitted(asked(LONG), context=800, count=Counting())).messages
    assert len(messages) == 7


async def test_a_limit_beyond_the_context_reserves_no_more_than_no_limit() -> None:
    messages = (await fitted(asked(LONG, max_tokens=32_000), context=800, count=Counting())).messages
    assert len(messages) == 7


async def test_where_nothing_helps_the_request_stays_as_it_is() -> None:
    assert (await fitted(asked(LONG, max_tokens=1), context=101, count=Counting())).messages == asked(LONG).messages


def test_results_keep_their_calls_and_what_the_user_said_last_stays() -> None:
    history = [SYSTEM, said("user", "old"), said("assistant", "yes"), said("user", "Read."), *step(1), *step(2)]
    found = shortened(history)
    assert found[-1] == [SYSTEM, said("user", "Read."), *step(2)]
    assert found[0] == [SYSTEM, *history[2:4], *step(1), *step(2)]
    for messages in found:
        calls = {call["id"] for message in messages for call in message.get("tool_calls", [])}
        assert all(message["tool_call_id"] in calls for message in messages if message["role"] == "tool")
        assert said("user", "Read.") in messages


@pytest.mark.parametrize("history", [[], [SYSTEM], [said("user", "a")], [said("assistant", "a")]])
def test_a_conversation_of_one_message_cannot_be_shortened(history: list[JsonObject]) -> None:
    assert shortened(history) == []
