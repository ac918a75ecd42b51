"""vLLM by itself with our plugin in it, activated LoRA switched on, and adapters named on the command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.engine.running import ROOT, eventually

ENTRY = ROOT / "services" / "engine" / "vllm_plugin" / "entry"
BLOCK = 32
START_S = 480


@dataclass(frozen=True)
class Vllm:
    """A running vLLM and a client of it; `log` is what it says."""

    client: httpx.Client
    log: Path

    def complete(self, model: str, prompt: list[int] | list[list[int]], **more: Any) -> dict[str, Any]:
        """The answer of /v1/completions; greedy unless `more` says otherwise."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "return_tokens_as_token_ids": True, **more}
        reply = self.client.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text[:2000]
        answer: dict[str, Any] = reply.json()
        return answer

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def cached_tokens(answer: dict[str, Any]) -> int:
    """How many tokens of the prompt were taken from the prefix cache."""
    details = answer["usage"]["prompt_tokens_details"]
    return int(details["cached_tokens"] or 0) if details else 0


@contextlib.contextmanager
def running_vllm(folder: Path, model_dir: Path, adapters: dict[str, Path], *flags: str) -> Iterator[Vllm]:
    """vLLM on a socket in `folder`, in bfloat16 unless `flags` say otherwise, serving `adapters` by name.

    It and all its processes end with the block.
    """
    socket, log = folder / "vllm.sock", folder / "vllm.log"
    command = [
        sys.executable, "-m", "services.engine.tether", str(os.getpid()),
        "--model", str(model_dir), "--served-model-name", "base", "--uds", str(socket),
        "--dtype", "bfloat16", "--block-size", str(BLOCK), "--enforce-eager", "--max-logprobs", "128",
        "--enable-prefix-caching", "--enable-prompt-tokens-details",
        "--enable-lora", "--max-loras", str(len(adapters)), "--max-lora-rank", "32",
        "--lora-modules", *(f"{name}={path}" for name, path in adapters.items()), *flags,
    ]  # fmt: skip
    cores = sorted(os.sched_getaffinity(0))
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ENTRY}",
        "AGENTFLUX_ENGINE_PLUGIN_ACTIVATED": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
    }
    with log.open("wb") as output:
        process = psutil.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://vllm", timeout=300)
    try:
        eventually(lambda: _answers(client, process, log), within_s=START_S)
        yield Vllm(client, log)
    finally:
        client.close()
        family = [process, *process.children(recursive=True)] if process.is_running() else []
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


def _answers(client: httpx.Client, process: psutil.Popen, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False
