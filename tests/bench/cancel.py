"""How soon a client that leaves is felt upstream: 1,000 connections reset in the vote, while arguments are written, in a stream.

A real gateway process; selector, argument service and engine are a stand-in that holds the request of one stage for ever and
notes when its connection closes. Prints a table and writes it to build/bench/cancel.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from tests.bench.gateway import BODIES
from tests.bench.instant import STREAM_HEAD, Instant, chunk

TRIALS = 1000
PORTS = (18660, 18661)
# Which request is held, and what has to be asked to get there.
STAGES = {
    "vote": (b"/v1/select", "tools"),
    "arguments": (b"/v1/arguments", "tools"),
    "stream": (b"/v1/chat/completions", "stream"),
}


@dataclass
class Held:
    """The request that is being held, and when its connection closed."""

    path: bytes = b""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_at: float = 0.0


class Holding(Instant):
    """Answers at once, but for the path that is held."""

    def __init__(self, held: Held) -> None:
        super().__init__(0.0)
        self.held = held
        self.mine = False

    def data_received(self, data: bytes) -> None:
        if b"POST " + self.held.path + b" " in data and self.transport is not None:
            self.mine = True
            if self.held.path == b"/v1/chat/completions":
                self.transport.write(STREAM_HEAD + chunk({"role": "assistant", "content": "Well"}))
            self.held.arrived.set()
            return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.mine:
            self.held.closed_at = time.perf_counter()
            self.held.closed.set()
        super().connection_lost(exc)


async def measure() -> list[dict[str, object]]:
    """One row per stage."""
    held, rows = Held(), []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Holding(held), "127.0.0.1", PORTS[0])
    names = {name: f"http://127.0.0.1:{PORTS[0]}" for name in ("ENGINE_URL", "SELECTOR_URL", "ARGUMENTS_URL", "CALLCACHE_URL")}
    settings = {**names, "PORT": str(PORTS[1]), "LOG_LEVEL": "error", "BREAKER_FAILURES": "1000000"}
    env = {**os.environ, **{f"AGENTFLUX_GATEWAY_{name}": value for name, value in settings.items()}}
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.gateway", cwd=REPOSITORY, env=env)
    try:
        await _until_open(PORTS[1])
        for stage, (path, body) in STAGES.items():
            took = [await _trial(held, path, json.dumps(BODIES[body]).encode()) for _ in range(TRIALS // len(STAGES) + 1)]
            took.sort()
            within = sum(seconds <= 0.05 for seconds in took)
            row = {"stage": stage, "trials": len(took), "within_50_ms": within, "p50_ms": took[len(took) // 2] * 1e3}
            rows.append({**row, "p99_ms": took[int(len(took) * 0.99)] * 1e3, "max_ms": took[-1] * 1e3})
    finally:
        gateway.terminate()
        await gateway.wait()
        server.close()
    return rows


async def _trial(held: Held, path: bytes, body: bytes) -> float:
    """Seconds from the client's reset to the closing of the held connection; infinite when it does not close in 5 s."""
    held.path, held.arrived, held.closed = path, asyncio.Event(), asyncio.Event()
    client = socket.create_connection(("127.0.0.1", PORTS[1]))
    # Closing sends a reset: the client is gone, not only done with writing.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    try:
        async with asyncio.timeout(5):
            await held.arrived.wait()
            await asyncio.sleep(random.random() * 0.02)
            left_at = time.perf_counter()
            client.close()
            await held.closed.wait()
    except TimeoutError:
        client.close()
        return float("inf")
    return held.closed_at - left_at


async def _until_open(port: int) -> None:
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise RuntimeError("the gateway did not start")


def main() -> None:
    """Measures, prints, writes."""
    progress, rows = Progress(), asyncio.run(measure())
    for row in rows:
        progress.show(
            f"{row['stage']:10} {row['within_50_ms']} of {row['trials']} within 50 ms   p50 {row['p50_ms']:.1f} ms   "
            f"p99 {row['p99_ms']:.1f} ms   max {row['max_ms']:.1f} ms"
        )
    target = REPOSITORY / "build" / "bench" / "cancel.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
