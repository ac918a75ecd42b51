"""An engine's stream may arrive in any pieces: split at every byte, it gives the same reply, and the same as unstreamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.events import AnswerChunk, Answered
from services.gateway.wire.replies import Reply
from services.shared.clients.engine import EngineClient
from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import AgentFluxError, EngineUnavailable, UpstreamError

pytestmark = pytest.mark.anyio

MESSAGE = {
    "role": "assistant",
    "content": 'Größe: 3\u2028kB 🙂 {"data": "data: [DONE]"}\n\ndata:',
    "tool_calls": [
        {"id": "call_a", "type": "function", "function": {"name": "lies", "arguments": '{"pfad": "ü/🙂\\n\\u00e4"}'}},
        {"id": "call_b", "type": "function", "function": {"name": "jetzt", "arguments": "{}"}},
    ],
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def stream(*, ascii_only: bool, ending: str = "\n") -> bytes:
    """The message as an engine streams it: comments between, `data:` with and without a space, the call without arguments."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    text = str(MESSAGE["content"])
    deltas += [{"content": text[at : at + 5]} for at in range(0, len(text), 5)]
    first, second = MESSAGE["tool_calls"]
    named = {key: first[key] for key in ("id", "type")} | {"function": {"name": "lies", "arguments": ""}}
    deltas.append({"tool_calls": [{"index": 0, **named}]})
    arguments = str(first["function"]["arguments"])
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (arguments[:9], arguments[9:])]
    deltas.append({"tool_calls": [{"index": 1, "id": second["id"], "type": "function", "function": {"name": "jetzt"}}]})
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": USAGE})
    lines = [f"data:{' ' if i % 2 else ''}{json.dumps(chunk, ensure_ascii=ascii_only)}" for i, chunk in enumerate(chunks)]
    frames = [": ping", *lines, "data: [DONE]"]
    return "".join(f"{frame}{ending}{ending}" for frame in frames).encode()


class Pieces(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """An engine whose reply arrives in exactly these pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


async def replied(pieces: Sequence[bytes]) -> dict[str, Any]:
    """The reply that a streaming client adds up to."""
    http = HttpClient("http://engine", service="engine", timeout_s=5, unavailable=EngineUnavailable, transport=Pieces(pieces))
    engine = EngineClient(http)
    reply = Reply("m", "chatcmpl-1")
    async for chunk in engine.stream_chat({}):
        reply.add(AnswerChunk(chunk))
    return comparable(reply)


def comparable(reply: Reply) -> dict[str, Any]:
    body = reply.body()
    return {"choices": body["choices"], "usage": body["usage"]}


def unstreamed() -> dict[str, Any]:
    reply = Reply("m", "chatcmpl-1")
    reply.add(Answered({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"}], "usage": USAGE}))
    return comparable(reply)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_a_split_at_any_byte_changes_nothing(ascii_only: bool, ending: str) -> None:
    raw, expected = stream(ascii_only=ascii_only, ending=ending), unstreamed()
    assert expected["choices"][0]["message"]["tool_calls"] == MESSAGE["tool_calls"]
    for at in range(len(raw)):
        assert await replied([raw[:at], raw[at:]]) == expected, at
    assert await replied([raw[at : at + 1] for at in range(len(raw))]) == expected


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5000), max_size=40))
async def test_many_splits_change_nothing(places: list[int]) -> None:
    raw = stream(ascii_only=False)
    cuts = sorted(place % len(raw) for place in places)
    assert await replied([raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]) == unstreamed()


async def test_a_stream_that_ends_early_is_an_error_and_no_short_reply() -> None:
    raw = stream(ascii_only=False)
    for at in range(0, len(raw) - len("data: [DONE]\n\n"), 7):
        with pytest.raises((EngineUnavailable, UpstreamError)):
            await replied([raw[:at]])


@pytest.mark.parametrize("frame", ["data: {\n\n", "data: [1]\n\n", 'data: {"choices": 3}\n\n', 'data: {"choices": [3]}\n\n'])
async def test_a_frame_that_is_no_chunk_is_a_named_error(frame: str) -> None:
    with pytest.raises(AgentFluxError) as caught:
        await replied([frame.encode(), b"data: [DONE]\n\n"])
    assert caught.value.status == 502


async def test_a_line_without_end_is_cut_off() -> None:
    with pytest.raises(AgentFluxError, match="longer than"):
        await replied([b"data: ", *[b"x" * 65536] * 64])
