"""vLLM with our plugin as the launcher starts it, and random adapters of the real base model for it to serve."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.engine.vllm_plugin.events import MARKER
from services.shared.clients.adapters import AdapterStore
from tests.adapters import card_of, write_adapter
from tests.engine.running import ROOT, eventually

MODEL = ROOT / ".run" / "models" / "smollm2-135m-instruct"
ENTRY = ROOT / "services" / "engine" / "vllm_plugin" / "entry"
START_S = 600


@dataclass(frozen=True)
class Vllm:
    """A running vLLM: a client of it, what it says, and its API server."""

    client: httpx.Client
    log: Path
    process: psutil.Process

    def complete(self, model: str, prompts: list[list[int]], **more: Any) -> dict[str, Any]:
        """The answer of /v1/completions; greedy unless `more` says otherwise."""
        reply = self.client.post("/v1/completions", json={"model": model, "prompt": prompts, "temperature": 0, **more})
        assert reply.status_code == 200, reply.text[:2000]
        answer: dict[str, Any] = reply.json()
        return answer

    def events(self, event: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        lines = [line.partition(f" {MARKER} ")[2] for line in self.log.read_text().splitlines()]
        return [found for line in lines if line and (found := json.loads(line))["event"] == event]


@contextlib.contextmanager
def running_vllm(folder: Path, store: Path, *flags: str, **env: str) -> Iterator[Vllm]:
    """vLLM on a socket in the new `folder`, with LoRA, the plugin and a closed door; all its processes end with the block."""
    folder.mkdir()
    socket, log = folder / "vllm.sock", folder / "vllm.log"
    command = [
        sys.executable, "-m", "services.engine.tether", str(os.getpid()),
        "--model", str(MODEL), "--served-model-name", "base", "--uds", str(socket), "--max-model-len", "2048",
        "--dtype", "bfloat16", "--block-size", "32", "--enforce-eager", "--max-logprobs", "128",
        "--enable-lora", "--max-lora-rank", "32", "--disable-uvicorn-access-log",
        "--middleware", "services.engine.vllm_plugin.edge.ClosedRoutes", *flags,
    ]  # fmt: skip
    cores = sorted(os.sched_getaffinity(0))
    settings = {
        "PYTHONPATH": f"{ROOT}:{ENTRY}",
        "VLLM_PLUGINS": "agentflux",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "AGENTFLUX_ENGINE_PLUGIN_STORE": str(store),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
    }
    with log.open("wb") as out:
        process = psutil.Popen(command, cwd=ROOT, env={**os.environ, **settings, **env}, stdout=out, stderr=out)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=300)
    children: list[psutil.Process] = []
    try:
        eventually(lambda: _is_healthy(client, process, log), within_s=START_S)
        children = process.children(recursive=True)
        yield Vllm(client, log, process)
    finally:
        client.close()
        children = children or (process.children(recursive=True) if process.is_running() else [])
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()
        psutil.wait_procs(children, timeout=20)


def _is_healthy(client: httpx.Client, process: psutil.Popen, log: Path) -> bool:
    assert process.poll() is None, f"vLLM ended:\n{log.read_text()[-3000:]}"
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").is_success
    return False


def publish_strong(store: Path, scratch: Path, *, tool: str, seed: int, rank: int = 16, **fields: Any) -> str:
    """Publishes an argument adapter that changes every prediction visibly; its name."""
    folder = write_adapter(scratch, MODEL, rank=rank, alpha=2 * rank, seed=seed, scale=0.05)
    return AdapterStore(store).publish(folder, card_of(folder, MODEL, role="arguments", tool=tool, seed=seed, **fields))
