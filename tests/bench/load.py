"""Load of HTTP requests over kept connections, in a process of its own: `python -m tests.bench.load URL BODY.json C N [RATE]`.

Closed loop: C connections, each asks again when its reply is whole, N requests in all. With RATE (per second) the loop is
open: requests start when they are due, whether or not earlier ones are back, and wait for a free connection if they must;
their time counts from when they were due, so that a stalled server cannot hide. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

FRAME = b"data: {"


class Connection(asyncio.Protocol):
    """Asks one request at a time; `done` gets status, seconds and the times of its chunks."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[tuple[int, list[float]]] | None = None
        self.transport: asyncio.Transport | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.head, self.length, self.chunked, self.tail, self.size = bytearray(), -1, False, b"", 0
        self.times: list[float] = []
        self.status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do the same.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("closed"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, list[float]]]:
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
            self.status = int(head[9:12])
            at = head.find(b"content-length:")
            self.chunked = at < 0
            self.length = 0 if self.chunked else int(head[at + 15 :].split(b"\r\n", 1)[0])
        self.size += len(data)
        if self.chunked:
            # A frame's first bytes may be the last of what came before.
            seen = self.tail + data
            self.times += [time.perf_counter()] * (seen.count(FRAME) - self.tail.count(FRAME))
            self.tail = seen[1 - len(FRAME) :]
        if self.tail.endswith(b"0\r\n\r\n") if self.chunked else self.size >= self.length:
            assert self.waiting is not None
            self.waiting.set_result((self.status, self.times))


async def main(url: str, body: bytes, connections: int, total: int, rate: float) -> dict[str, object]:
    """Statuses, seconds of every request, frames of every stream and the gaps between them, and how long it took in all."""
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    request = f"{head}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    frames: Counter[int] = Counter()
    gaps: list[float] = []
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
                status, times = await connection.ask(request)
            except OSError:
                statuses["broken"] += 1
                connection = None
                continue
            statuses[str(status)] += 1
            if status == 200:
                seconds.append(time.perf_counter() - due)
            frames[len(times)] += 1
            gaps.extend(after - before for before, after in itertools.pairwise(times))

    await asyncio.gather(*(work() for _ in range(connections)))
    took = time.perf_counter() - started
    return {"took_s": took, "statuses": statuses, "seconds": seconds, "frames": frames, "gaps": gaps}


if __name__ == "__main__":
    rate = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    print(json.dumps(uvloop.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), int(sys.argv[4]), rate))))
