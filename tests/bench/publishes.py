"""A hundred publishes on two real engines while clients ask without pause, and one of the engines is killed halfway.

Gateway, selector and argument service are the real ones; every tenth publish is a roll-back. Counts replies, failures and
replies that mix two releases, and times from promote to the first reply of the new release. Prints a table and writes it to
build/bench/publishes.json.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from deploy.local import base_model
from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.shared.clients.adapters import AdapterStore
from tests.e2e.test_hot_publish import NAMES, Publisher, Traffic, services_before
from tests.engine.vllm_plugin.serving import MODEL, Vllm, running_vllm

PUBLISHES, CLIENTS, TOOLS_WRITTEN_FOR = 100, 2, 2
FLAGS = ("--max-model-len", "8192", "--max-loras", "8", "--max-cpu-loras", "16", "--scheduling-policy", "priority")


def main() -> None:
    """Measures, prints, writes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    progress = Progress()
    base_model.prepare(MODEL, say=progress.show)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder, "store")
        store.mkdir()
        progress.show("starting two vLLMs")
        engines = [stack.enter_context(running_vllm(Path(folder, name), store, *FLAGS)) for name in ("one", "two")]
        written_for = NAMES[:TOOLS_WRITTEN_FOR]
        publisher = Publisher(AdapterStore(store), MODEL, Path(folder, "made"), written_for=written_for, profile="compact")
        row = asyncio.run(_measured(publisher, engines, progress))
    for name, value in row.items():
        progress.show(f"{name:32} {value}")
    target = REPOSITORY / "build" / "bench" / "publishes.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(row, indent=2) + "\n")


async def _measured(publisher: Publisher, engines: list[Vllm], progress: Progress) -> dict[str, Any]:
    urls = ",".join(f"unix:{engine.log.with_name('vllm.sock')}" for engine in engines)
    seconds: dict[str, list[float]] = {"publish": [], "roll back": []}
    failed_before_kill = 0
    async with services_before(urls, MODEL, publisher.store.root) as url:
        traffic = Traffic(url, publisher, "base")
        async with traffic.running(CLIENTS):
            for step in range(PUBLISHES):
                what = "roll back" if step % 10 == 9 else "publish"
                release = await asyncio.to_thread(publisher.roll_back if what == "roll back" else publisher.publish)
                promoted = time.monotonic()
                await traffic.until_seen(release, within_s=300)
                seconds[what].append(time.monotonic() - promoted)
                progress.show(f"release {release} after {seconds[what][-1]:.1f} s, {sum(traffic.seen.values())} replies")
                if step == PUBLISHES // 2:
                    failed_before_kill = len(traffic.failures)
                    engines[1].process.kill()
    return {
        "publishes and roll-backs": PUBLISHES,
        "replies": sum(traffic.seen.values()),
        "failed or mixed, two engines": failed_before_kill,
        "failed or mixed, one was killed": len(traffic.failures) - failed_before_kill,
        "first failures": traffic.failures[:3],
        "publish to first reply, median s": round(statistics.median(seconds["publish"]), 2),
        "roll back to first reply, median s": round(statistics.median(seconds["roll back"]), 2),
        "roll back to first reply, worst s": round(max(seconds["roll back"]), 2),
    }


if __name__ == "__main__":
    main()
