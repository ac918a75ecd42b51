"""An engine, a selector and an argument service that answer at once: `python -m tests.bench.instant PORT DELAY_MS`.

HTTP/1.1 by hand on asyncio, so that the stand-in costs as little as Python can. Streamed answers are 64 words, 20 ms apart, or
40 ms where they are asked for slowly; each is the time at which it was sent.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import sys
import time
from typing import cast

import uvloop

WORDS, WORD_S, SLOW_WORD_S = 64, 0.02, 0.04
# Before the first word and after the last: what streams cost that begin and end is not measured with the words of the others.
PAUSE_S = 1.0
# Streams speak in step, as those of one engine do, unless a request's body holds this: then each has its own beat.
SPREAD = "each in its own time"
SLOWLY = "and slowly"
# The longest sleep, for new requests wait as long.
SLEEP_S = 0.0005
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _reply(body: object) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content) + content


def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _framed(json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [choice]}))


def _framed(data: str) -> bytes:
    content = f"data: {data}\n\n".encode()
    return b"%x\r\n" % len(content) + content + b"\r\n"


MESSAGE = {"role": "assistant", "content": "It is done."}
CHAT = _reply({"id": "x", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE})
SELECTION = _reply(
    {
        "tool": "get_weather", "probabilities": {"get_weather": 0.98, "summarize": 0.02}, "margin": 0.96, "valid_mass": 1.0,
        "strategy": "exact", "adapter": "base", "usage": USAGE, "timings": {"score": 0.001},
    }
)  # fmt: skip
ARGUMENTS = _reply({"arguments": '{"city":"Paris"}', "attempts": 1, "adapter": "base", "usage": USAGE})
REPLIES = {
    b"/v1/chat/completions": CHAT,
    b"/v1/select": SELECTION,
    b"/v1/arguments": ARGUMENTS,
    b"/v1/models": _reply({"object": "list", "data": [{"id": "base", "max_model_len": 8192}]}),
}
OTHER = _reply({"status": "ok"})
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORD = chunk({"content": "@0000000000.000000 "}).split(b"0000000000.000000")
STREAM_END = chunk({}, "stop") + _framed(json.dumps({"choices": [], "usage": USAGE})) + _framed("[DONE]") + b"0\r\n\r\n"


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.unread = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do the same.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.unread += data
        while (end := self.unread.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.unread[:end]).lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.unread) < end + 4 + size:
                return
            body = bytes(self.unread[end + 4 : end + 4 + size])
            del self.unread[: end + 4 + size]
            path = head.split(b" ", 2)[1]
            loop = asyncio.get_running_loop()
            if path == b"/v1/chat/completions" and b'"stream":true' in body.replace(b" ", b""):
                word_s = SLOW_WORD_S if SLOWLY.encode() in body else WORD_S
                loop.call_later(self.delay_s, self.stream, SPREAD.encode() in body, word_s)
            elif self.delay_s:
                loop.call_later(self.delay_s, self.send, REPLIES.get(path, OTHER))
            else:
                self.send(REPLIES.get(path, OTHER))

    def stream(self, spread: bool, word_s: float) -> None:
        self.send(STREAM_HEAD + chunk({"role": "assistant", "content": ""}))
        SPEAKER.begin(self, spread, word_s)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


class Speaker:
    """Has every stream say its words when they are due, to within 0.1 ms: an event loop's own timers know milliseconds."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        # When, which stream (by number, for heaps compare), how many words it has said, and how long it waits between them.
        self.due: list[tuple[float, int, Instant, int, float]] = []

    def begin(self, stream: Instant, spread: bool, word_s: float) -> None:
        number = next(self.numbers)
        # The golden ratio spreads any number of streams evenly.
        beat = number * 0.618034 % 1 if spread else 0.0
        first = ((time.monotonic() + PAUSE_S) // word_s + 1 + beat) * word_s
        heapq.heappush(self.due, (first, number, stream, 0, word_s))
        if len(self.due) == 1:
            self.speak()

    def speak(self) -> None:
        while self.due and self.due[0][0] <= (now := time.monotonic()):
            at, number, stream, said, word_s = heapq.heappop(self.due)
            if said == WORDS:
                stream.send(STREAM_END)
                continue
            stream.send(b"%b%017.6f%b" % (WORD[0], now, WORD[1]))
            pause_s = word_s if said + 1 < WORDS else PAUSE_S
            heapq.heappush(self.due, (at + pause_s, number, stream, said + 1, word_s))
        if self.due:
            # In the loop, for a thread would have to be waited for.
            time.sleep(max(0.0, min(self.due[0][0] - time.monotonic(), SLEEP_S)))
            asyncio.get_running_loop().call_soon(self.speak)


SPEAKER = Speaker()


async def main(port: int, delay_s: float) -> None:
    """Serves until it is killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Instant(delay_s), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
