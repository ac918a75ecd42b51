"""What the way over several engines costs: a call with and without it, and how soon an engine learns that nobody waits any more.

The clients take turns call by call against the same engine, which answers at once. Prints a table and writes it to
build/bench/engines.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from typing import Any

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.shared.clients.engine import EngineClient
from services.shared.clients.engines import EngineFleet
from services.shared.clients.http import HttpClient
from services.shared.contracts.engine import CompletionRequest
from tests.shared.clients.fake_engine import engine_process, engines

ROUNDS = 2000
PROMPT = [1, *range(100, 1600), 1, *range(50), 1, 7, 8]
MODEL = "filesystem.select--0123456789ab"


def main() -> None:
    """Measures, prints, writes."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(engine_process())[0] for _ in range(4)]
        took = asyncio.run(_calls(urls))
    took["cancel to disconnect"] = asyncio.run(_cancels())
    progress = Progress()
    rows = []
    for name, seconds in took.items():
        tenths = statistics.quantiles(seconds, n=10)
        rows.append({"what": name, "n": len(seconds), "median_us": statistics.median(seconds) * 1e6, "p90_us": tenths[8] * 1e6})
        progress.show(f"{name:22} n={len(seconds):<5} median {rows[-1]['median_us']:7.0f} us   p90 {rows[-1]['p90_us']:7.0f} us")
    target = REPOSITORY / "build" / "bench" / "engines.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


async def _calls(urls: list[str]) -> dict[str, list[float]]:
    options: dict[str, Any] = {"timeout_s": 10, "role": "bench", "base_model": "base"}
    one, four = EngineFleet.connect(urls[0], **options), EngineFleet.connect(",".join(urls), **options)
    http = HttpClient(urls[0], service="engine", timeout_s=10)
    clients: dict[str, EngineClient | EngineFleet] = {"client": EngineClient(http), "fleet of one": one, "fleet of four": four}
    took: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, client in clients.items():
            started = time.perf_counter()
            await client.complete(CompletionRequest(model=MODEL, prompt=PROMPT, max_tokens=1))
            took[name].append(time.perf_counter() - started)
    for opened in (http, one, four):
        await opened.aclose()
    return took


async def _cancels() -> list[float]:
    took = []
    async with engines(2, mood="mute") as fakes:
        fleet = EngineFleet.connect(",".join(fake.url for fake in fakes), timeout_s=10, role="bench", base_model="base")
        for number in range(200):
            call = asyncio.create_task(fleet.complete(CompletionRequest(model="base", prompt=[1, 2, 1, number, 1], max_tokens=1)))
            while sum(len(fake.requests) for fake in fakes) <= number:  # noqa: ASYNC110  (the engine is in this process)
                await asyncio.sleep(0)
            cancelled = time.monotonic()
            call.cancel()
            while sum(len(fake.left) for fake in fakes) <= number:  # noqa: ASYNC110
                await asyncio.sleep(0)
            took.append(max(fake.left[-1] for fake in fakes if fake.left) - cancelled)
        await fleet.aclose()
    return took


if __name__ == "__main__":
    main()
