"""In which pieces a stream is written."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.api.streams import event_stream
from services.gateway.api.turns import Turns
from services.gateway.events import AnswerChunk, Event
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue
from services.shared.contracts.calls import Ladder
from services.shared.contracts.errors import AgentFluxError, UpstreamError
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine

pytestmark = pytest.mark.anyio


class Words:
    """A door that says every word as it is; an empty one is no frame."""

    def __init__(self, *, ends_after_s: float = 0) -> None:
        self.ends_after_s = ends_after_s

    def opening(self) -> Iterable[bytes]:
        return ()

    def of(self, event: Event) -> Iterable[bytes]:
        assert isinstance(event, AnswerChunk)
        for word in event.chunk["words"]:
            if word == "bad":
                raise UpstreamError("that was no word")
            if word:
                yield word.encode()

    def silence(self) -> Iterable[bytes]:
        return (b"(silence)",)

    async def end(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.ends_after_s)
        yield b"(end)"

    def failure(self, error: AgentFluxError) -> Iterable[bytes]:
        return (f"({error.message})".encode(),)


class Client:
    """Keeps what is written to it; takes `slow_s` for every piece."""

    def __init__(self, *, slow_s: float = 0) -> None:
        self.slow_s = slow_s
        self.written: list[bytes] = []
        self.timing = b""
        self.has_heard = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            frames, _, self.timing = message["body"].partition(b": server-timing ")
            self.written.append(frames)
            self.has_heard.set()
            if self.slow_s:
                await asyncio.sleep(self.slow_s)


async def tell(
    events: AsyncGenerator[Event], door: Words, client: Client, *, keepalive_s: float = 5, request_timeout_s: float = 30
) -> None:
    """Streams a turn of these events to a client."""
    look_ahead = LookAhead(FakeWriter(), adapters=0)
    pipeline = Pipeline(
        ScriptedEngine(), FakeSelector(lambda _: None), FakeWriter(), FakeMemory(), Catalogue("base", []), Ladder(), look_ahead
    )
    turns = Turns(pipeline, GatewayMetrics(CollectorRegistry()), request_timeout_s=request_timeout_s, keepalive_s=keepalive_s)
    reply = await event_stream(turns.run(events), door)
    await reply({"type": "http"}, asyncio.Queue().get, client.send)


async def bursts(*words: tuple[str, ...], pause_s: float = 0.02) -> AsyncGenerator[Event]:
    """Words that come in bursts, each an event."""
    for burst in words:
        for word in burst:
            yield AnswerChunk({"words": [word]})
        await asyncio.sleep(pause_s)


async def pieces_of(*words: tuple[str, ...], door: Words | None = None) -> list[bytes]:
    """What is written of words that come in bursts."""
    client = Client()
    await tell(bursts(*words), door or Words(), client)
    return client.written


async def test_what_arrives_together_is_written_together() -> None:
    assert await pieces_of(("one", "two", "three"), ("four",)) == [b"onetwothree", b"four", b"(end)"]


async def test_a_frame_does_not_wait_for_what_becomes_none() -> None:
    assert await pieces_of(("one", "", ""), ("", "two")) == [b"one", b"two", b"(end)"]


async def test_the_last_frame_does_not_wait_for_a_door_that_ends_slowly() -> None:
    client = Client()
    telling = asyncio.create_task(tell(bursts(("one",), pause_s=0), Words(ends_after_s=30), client))
    await asyncio.wait_for(client.has_heard.wait(), 5)
    assert client.written == [b"one"]
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling


async def test_what_came_before_an_error_is_written_also_of_the_same_event() -> None:
    async def events() -> AsyncGenerator[Event]:
        yield AnswerChunk({"words": ["one"]})
        yield AnswerChunk({"words": ["two", "bad", "never"]})
        yield AnswerChunk({"words": ["never"]})

    client = Client()
    await tell(events(), Words(), client)
    assert b"".join(client.written) == b"onetwo(that was no word)"


async def test_a_silence_is_bridged_and_frames_are_none() -> None:
    client = Client()
    await tell(bursts(("one",), ("two",), pause_s=0.15), Words(), client, keepalive_s=0.1)
    # A busy machine makes silences longer.
    assert re.fullmatch(rb"one(\(silence\))+two(\(silence\))+\(end\)", b"".join(client.written))


async def test_a_client_that_reads_slowly_hears_no_silence_and_every_word_in_order() -> None:
    client = Client(slow_s=0.05)
    words = [str(number) for number in range(6)]
    await tell(bursts(*((word,) for word in words), pause_s=0), Words(), client, keepalive_s=0.02)
    assert b"".join(client.written) == "".join(words).encode() + b"(end)"


async def test_the_time_that_a_reader_takes_is_not_told_as_the_engines() -> None:
    client = Client(slow_s=0.3)
    await tell(bursts(("one",), ("two",), pause_s=0), Words(), client)
    told = re.search(rb"engine;dur=([\d.]+)", client.timing)
    assert told is not None
    assert float(told[1]) < 300


async def test_a_deadline_while_the_client_reads_nothing_loses_no_frame() -> None:
    reads = asyncio.Event()

    class Absent(Client):
        async def send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                await reads.wait()
            await super().send(message)

    client = Absent()
    telling = asyncio.create_task(tell(bursts(("one", "two"), pause_s=0), Words(), client, request_timeout_s=0.05))
    await asyncio.sleep(0.3)
    reads.set()
    await telling
    assert b"".join(client.written).startswith(b"onetwo(the request took longer than")


async def test_a_deadline_ends_a_stream_in_the_words_of_its_door() -> None:
    client = Client()
    await tell(bursts(("one",), ("never",), pause_s=30), Words(), client, request_timeout_s=0.05)
    assert client.written[0] == b"one"
    assert b"longer than 0.05 s" in client.written[-1]


async def test_a_stream_that_is_over_leaves_nothing_for_the_collector() -> None:
    door = Words()
    told = weakref.ref(door)
    gc.disable()
    try:
        await tell(bursts(("one",)), door, Client())
        del door
        await asyncio.sleep(0)
        assert told() is None
    finally:
        gc.enable()
