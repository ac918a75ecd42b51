"""Load of HTTP requests over kept connections, in a process of its own: `python -m tests.bench.load URL BODY.json C N [RATE]`.

Closed loop: C connections, each asks again when its reply is whole, N requests in all. With RATE (per second) the loop is
open: requests start when they are due, whether or not earlier ones are back, and wait for a free connection if they must;
their time counts from when they were due, so that a stalled server cannot hide. Prints one JSON object.

Words of streams that are `@` and the time at which they were sent (`time.monotonic()` on this machine) are timed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

FRAME = b"data: {"
WORD = re.compile(rb"@(\d+\.\d+) ")


@dataclass
class Told:
    """A reply: its status, how many frames it had, when its words came, and how long each was on its way (seconds)."""

    status: int = 0
    frames: int = 0
    times: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """Asks one request at a time."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[Told] | None = None
        self.transport: asyncio.Transport | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.head, self.length, self.chunked, self.tail, self.size = bytearray(), -1, False, b"", 0
        self.told = Told()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do the same.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("closed"))

    def ask(self, request: bytes) -> asyncio.Future[Told]:
        assert self.transport is not None
        self._start_over()
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        if self.length < 0 and not self.chunked:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = bytes(self.head[:end]).lower(), bytes(self.head[end + 4 :])
            self.told.status = int(head[9:12])
            at = head.find(b"content-length:")
            self.chunked = at < 0
            self.length = 0 if self.chunked else int(head[at + 15 :].split(b"\r\n", 1)[0])
        self.size += len(data)
        if self.chunked:
            frames, _, self.tail = (self.tail + data).rpartition(b"\n\n")
            now = time.monotonic()
            self.told.frames += frames.count(FRAME)
            for sent in WORD.findall(frames):
                self.told.times.append(now)
                self.told.delays.append(now - float(sent))
        if self.tail.endswith(b"0\r\n\r\n") if self.chunked else self.size >= self.length:
            assert self.waiting is not None
            self.waiting.set_result(self.told)


async def main(url: str, body: bytes, connections: int, total: int, rate: float) -> dict[str, object]:
    """Statuses, seconds of every request, frames of every stream, the gaps between its words and their delays, and how long it
    took in all."""
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    request = f"{head}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    frames: Counter[int] = Counter()
    gaps: list[float] = []
    delays: list[float] = []
    started = time.perf_counter()
    numbers = iter(range(total))

    async def work() -> None:
        connection: Connection | None = None
        for number in numbers:
            due = started + number / rate if rate else time.perf_counter()
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                if connection is None:
                    _, connection = await loop.create_connection(Connection, place.hostname, place.port)
                told = await connection.ask(request)
            except OSError:
                statuses["broken"] += 1
                connection = None
                continue
            statuses[str(told.status)] += 1
            if told.status == 200:
                seconds.append(time.perf_counter() - due)
            frames[told.frames] += 1
            gaps.extend(after - before for before, after in itertools.pairwise(told.times))
            delays.extend(told.delays)

    await asyncio.gather(*(work() for _ in range(connections)))
    took = time.perf_counter() - started
    return {"took_s": took, "statuses": statuses, "seconds": seconds, "frames": frames, "gaps": gaps, "delays": delays}


if __name__ == "__main__":
    rate = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    print(json.dumps(uvloop.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), int(sys.argv[4]), rate))))
