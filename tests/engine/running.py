"""Starts the engine service as an operator does, on a door and a socket of its own, and looks at its processes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.valkey import free_port

ROOT = Path(__file__).resolve().parents[2]
FAKE_VLLM = Path(__file__).with_name("fake_vllm")


class RunningEngine:
    """One `python -m services.engine`. `url` is where prompts go, in the spelling of our clients."""

    def __init__(self, folder: Path, model_dir: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.socket = folder / "sockets" / "engine.sock"
        self.url = f"unix:{self.socket}"
        self.log = folder / "engine.log"
        settings = {
            "AGENTFLUX_ENGINE_PORT": str(self.port),
            "AGENTFLUX_ENGINE_VLLM_URL": self.url,
            "AGENTFLUX_ENGINE_MODEL_DIR": str(model_dir),
        }
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "services.engine"], cwd=ROOT, env={**os.environ, **settings, **env}, stdout=log, stderr=log
            )

    def get(self, path: str) -> httpx.Response:
        """A GET at the door; a 503 with an empty body while there is no door."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=10)
        except httpx.TransportError:
            return httpx.Response(503, json={})

    def status(self) -> dict[str, Any]:
        """What /v1/status says; empty before there is a door."""
        body: dict[str, Any] = self.get("/v1/status").json()
        return body

    def descendants(self) -> list[psutil.Process]:
        """vLLM's processes, its API server first."""
        return self.process.children(recursive=True)


@contextlib.contextmanager
def running_engine(folder: Path, model_dir: Path, **env: str) -> Iterator[RunningEngine]:
    """An engine service, killed at the end together with all of vLLM."""
    engine = RunningEngine(folder, model_dir, env)
    try:
        yield engine
    finally:
        left = engine.descendants() if engine.process.is_running() else []
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.process.kill()
        engine.process.wait()
        psutil.wait_procs(left, timeout=10)


def eventually(fact: Callable[[], Any], *, within_s: float) -> Any:
    """The first true value of `fact`."""
    deadline = time.monotonic() + within_s
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.05)
    return value


def core_among(processes: list[psutil.Process]) -> psutil.Process | None:
    """The one that computes; None while there is none."""
    return next((process for process in processes if "EngineCore" in " ".join(_unless_gone(process.cmdline) or [])), None)


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs; one that nobody has waited for yet counts as gone."""
    return all((_unless_gone(process.status) or psutil.STATUS_ZOMBIE) == psutil.STATUS_ZOMBIE for process in processes)


def _unless_gone(look: Callable[[], Any]) -> Any:
    """What is seen of a process; None of one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return look()
    return None
