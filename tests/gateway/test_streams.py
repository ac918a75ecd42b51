"""In which pieces a stream is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.api.streams import event_stream
from services.gateway.api.turns import Turn, Turns
from services.gateway.events import AnswerChunk, Event
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue
from services.shared.contracts.calls import Ladder
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine

pytestmark = pytest.mark.anyio


async def pieces_of(*bursts: tuple[str, ...]) -> list[bytes]:
    """What is written of words that come in bursts, when a word is a frame and an empty one is none."""
    written: list[bytes] = []

    async def events() -> AsyncGenerator[Event]:
        for burst in bursts:
            for word in burst:
                yield AnswerChunk({"word": word})
            await asyncio.sleep(0.02)

    async def frames(turn: Turn) -> AsyncGenerator[bytes]:
        yield b"(opening)"
        async for event in turn.events_or_silence():
            if isinstance(event, AnswerChunk) and event.chunk["word"]:
                yield event.chunk["word"].encode()
        yield b"(end)"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            written.append(message["body"].partition(b": server-timing")[0])

    look_ahead = LookAhead(FakeWriter(), adapters=0)
    pipeline = Pipeline(
        ScriptedEngine(), FakeSelector(lambda _: None), FakeWriter(), FakeMemory(), Catalogue("base", []), Ladder(), look_ahead
    )
    turn = Turns(pipeline, GatewayMetrics(CollectorRegistry()), request_timeout_s=30, keepalive_s=5).run(events())
    reply = await event_stream(turn, frames(turn))
    await reply({"type": "http"}, asyncio.Queue().get, send)
    return written


async def test_what_arrives_together_is_written_together() -> None:
    assert await pieces_of(("one", "two", "three"), ("four",)) == [b"(opening)onetwothree", b"four", b"(end)"]


async def test_a_frame_does_not_wait_for_what_becomes_none() -> None:
    assert await pieces_of(("one", "", ""), ("", "two")) == [b"(opening)one", b"two", b"(end)"]
