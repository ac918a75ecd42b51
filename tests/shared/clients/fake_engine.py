"""An engine on vLLM's wire that is as ill as a test wants; `python -m tests.shared.clients.fake_engine` is one as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import psutil

Mood = Literal["well", "busy", "strict", "bare", "drops", "breaks", "mute", "frozen"]
"""busy: 503. strict: 400. bare: 404 for every adapter. drops: resets the connection instead of an answer. breaks: in the middle
of the answer. mute: takes requests and never answers them. frozen: not even to who asks whether it lives."""


class FakeEngine:
    """`requests` are the bodies of all POSTs that arrived, `left` the times at which callers hung up without an answer."""

    def __init__(self, *, context_length: int = 4096, mood: Mood = "well", delay_s: float = 0.0) -> None:
        self.context_length = context_length
        self.mood = mood
        self.delay_s = delay_s
        self.requests: list[dict[str, Any]] = []
        self.left: list[float] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens, after the first time again on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more, and resets what is open: a process that is gone."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            _reset(writer)

    def models(self) -> list[str]:
        return [request["model"] for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
                path = head.split()[1]
                await self._reply(path, json.loads(await reader.readexactly(length) or "{}"), reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _reply(self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models":
            if self.mood == "frozen":
                await self._wait_for_the_end(reader)
            return write(writer, {"data": [{"id": "base", "max_model_len": self.context_length}]})
        self.requests.append(body)
        if self.mood in ("mute", "frozen"):
            await self._wait_for_the_end(reader)
        if self.delay_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.delay_s):
                    await self._wait_for_the_end(reader)
        if self.mood == "busy":
            return write(writer, _error("The request queue is full", 503), "503 Service Unavailable")
        if self.mood == "strict":
            return write(writer, _error("LoRA rank 64 is greater than max_lora_rank 16.", 400), "400 Bad Request")
        if self.mood == "bare" and body["model"] != "base":
            return write(writer, _error(f"{body['model']!r} does not exist: it is no published adapter.", 404), "404 Not Found")
        if self.mood == "drops":
            _reset(writer)
            raise ConnectionResetError
        if self.mood == "breaks":
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"choices": [')
            await writer.drain()
            await asyncio.sleep(0.02)
            _reset(writer)
            raise ConnectionResetError
        if path == "/v1/chat/completions" and body["stream"]:
            return await self._stream(reader, writer)
        reply = _chat() if path == "/v1/chat/completions" else scores_of(body) if "logprob_token_ids" in body else texts_of(body)
        write(writer, reply)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Words, and between them time to leave."""
        _head(writer, "text/event-stream", "transfer-encoding: chunked")
        for word in ("one ", "two ", "three"):
            _chunk(writer, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.delay_s or 0.01):
                    await self._wait_for_the_end(reader)
        _chunk(writer, {"choices": [], "usage": _usage(11, 3)})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _wait_for_the_end(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        self.left.append(time.monotonic())
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def engines(count: int, **options: Any) -> AsyncIterator[list[FakeEngine]]:
    """So many engines that listen."""
    fakes = [FakeEngine(**options) for _ in range(count)]
    for fake in fakes:
        await fake.start()
    try:
        yield fakes
    finally:
        for fake in fakes:
            await fake.stop()


@contextlib.contextmanager
def engine_process(*, delay_s: float = 0.0) -> Iterator[tuple[str, psutil.Popen]]:
    """The URL of an engine in a process of its own, to be killed."""
    command = [sys.executable, "-m", "tests.shared.clients.fake_engine", str(delay_s)]
    with psutil.Popen(command, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def write(writer: asyncio.StreamWriter, body: dict[str, Any], status: str = "200 OK") -> None:
    content = json.dumps(body).encode()
    _head(writer, "application/json", f"content-length: {len(content)}", status)
    writer.write(content)


def _error(message: str, code: int) -> dict[str, Any]:
    """vLLM's `ErrorResponse`, whose code is the status again, a number."""
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}


def _head(writer: asyncio.StreamWriter, content_type: str, framing: str, status: str = "200 OK") -> None:
    writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode())


def _chunk(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _reset(writer: asyncio.StreamWriter) -> None:
    # Zero seconds of lingering: the kernel says RST, as it does for a process that was killed.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    details = {"cached_tokens": prompt // 2}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}


def scores_of(body: dict[str, Any]) -> dict[str, Any]:
    top = {f"token_id:{token}": -1.0 for token in body["logprob_token_ids"]}
    choices = [{"index": i, "text": "x", "logprobs": {"top_logprobs": [top]}} for i, _ in enumerate(body["prompt"])]
    return {"choices": choices, "usage": _usage(sum(map(len, body["prompt"])), len(choices))}


def texts_of(body: dict[str, Any]) -> dict[str, Any]:
    choices = [{"index": index, "text": "{}", "finish_reason": "stop"} for index in range(body["n"])]
    return {"choices": choices, "usage": _usage(len(body["prompt"]), len(choices))}


def _chat() -> dict[str, Any]:
    message = {"role": "assistant", "content": "It is done."}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": _usage(11, 4)}


async def _main(delay_s: float) -> None:
    fake = FakeEngine(delay_s=delay_s)
    await fake.start()
    print(fake.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1])))
