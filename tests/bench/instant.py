"""An engine, a selector and an argument service that answer at once: `python -m tests.bench.instant PORT DELAY_MS`.

HTTP/1.1 by hand on asyncio, so that the stand-in costs as little as Python can. Streamed answers are 64 words, 20 ms apart.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

WORDS, WORD_S = 64, 0.02
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
                loop.call_later(self.delay_s, self.stream, 0)
            elif self.delay_s:
                loop.call_later(self.delay_s, self.send, REPLIES.get(path, OTHER))
            else:
                self.send(REPLIES.get(path, OTHER))

    def stream(self, number: int) -> None:
        """Word after word: timers that are due at the same time have no order."""
        if number == 0:
            self.send(STREAM_HEAD + chunk({"role": "assistant", "content": ""}))
        self.send(chunk({"content": f"w{number} "}) if number < WORDS else STREAM_END)
        if number < WORDS:
            asyncio.get_running_loop().call_later(WORD_S, self.stream, number + 1)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


async def main(port: int, delay_s: float) -> None:
    """Serves until it is killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Instant(delay_s), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
