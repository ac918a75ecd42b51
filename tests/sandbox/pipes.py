"""A server without a process: the test itself writes its stdout and reads its stdin."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson


class Stdin:
    """The part of `asyncio.StreamWriter` that the transport uses. A `broken` one fails as a closed pipe does."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Any] = asyncio.Queue()
        self.broken = False
        self.closed = False

    def write(self, data: bytes) -> None:
        self.lines.put_nowait(orjson.loads(data))

    async def drain(self) -> None:
        if self.broken:
            raise BrokenPipeError

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        await self.drain()


class PipedServer:
    """Implements `driver.Process`. Its pipes end when it is killed."""

    pid = 4711

    def __init__(self) -> None:
        self.stdin: Any = Stdin()
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self.kills = 0
        self._ended = asyncio.Event()

    def kill(self) -> None:
        self.kills += 1
        self.end()

    def end(self) -> None:
        """It exits by itself."""
        if not self._ended.is_set():
            self._ended.set()
            self.stdout.feed_eof()
            self.stderr.feed_eof()

    async def wait(self) -> int:
        await self._ended.wait()
        return 7

    async def asked(self) -> Any:
        """The next message that the server gets."""
        return await asyncio.wait_for(self.stdin.lines.get(), 10)

    def say(self, message: Any) -> None:
        """One message on stdout; bytes go out as they are."""
        if not self._ended.is_set():
            self.stdout.feed_data(message if isinstance(message, bytes) else orjson.dumps(message) + b"\n")
