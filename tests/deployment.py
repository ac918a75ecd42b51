"""A whole deployment for end-to-end tests: what `make up` starts, in a folder and on ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.local import base_model
from deploy.local.plan import REPOSITORY, LocalSettings
from deploy.local.supervisor import read_state

PORT_OFFSET = 2000


@dataclass(frozen=True)
class Deployment:
    """A running deployment; `shown` is what `up` printed."""

    settings: LocalSettings
    shown: str

    @property
    def base_url(self) -> str:
        """What an OpenAI client gets as its base URL."""
        return f"http://127.0.0.1:{self.settings.port('gateway')}/v1"

    @property
    def model(self) -> str:
        """The base model's name."""
        return self.settings.base_model

    def get(self, service: str, path: str) -> httpx.Response:
        """A GET from a service's own door."""
        return httpx.get(f"http://127.0.0.1:{self.settings.port(service)}{path}", timeout=10)

    def pid(self, service: str) -> int:
        """The process of a service, once it runs."""

        def running() -> int | None:
            state = read_state(self.settings.run_dir)
            return state.children[service].pid if state else None

        return eventually(running, f"{service} runs")

    def wait_until_ready(self, timeout_s: float = 120, *, service: str = "gateway") -> None:
        """Returns when a service says that it is ready; the gateway asks the others whether they live, not whether they are."""

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                return bool(self.get(service, "/readyz").json()["status"] == "ready")
            return False

        eventually(ready, f"{service} is ready", timeout_s)


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """The first true value of `condition`; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {timeout_s:g} s still not: {what}"
        time.sleep(0.1)
    return value


@contextlib.contextmanager
def running_deployment() -> Iterator[Deployment]:
    """Brings a deployment up as a person would, and takes it down."""
    models = LocalSettings().run_dir / "models"
    base_model.prepare(models / "smollm2-135m-instruct", say=print)
    run_dir = Path(tempfile.mkdtemp(prefix="agentflux-test-"))
    # Under root, tools run as somebody else, who has to get to the workspace.
    run_dir.chmod(0o755)
    (run_dir / "models").symlink_to(models)
    env = {
        **os.environ,
        "AGENTFLUX_RUN_DIR": str(run_dir),
        "AGENTFLUX_PORT_OFFSET": str(PORT_OFFSET),
    }
    for own in ("REDIS_URL", "AGENTFLUX_MODEL_DIR", "AGENTFLUX_WORKSPACE"):
        env.pop(own, None)
    command = [sys.executable, "-m", "deploy.local"]
    try:
        up = subprocess.run([*command, "up"], cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=400, check=False)
        assert up.returncode == 0, up.stdout + up.stderr + _logs(run_dir)
        settings = LocalSettings(run_dir=run_dir, port_offset=PORT_OFFSET)
        yield Deployment(settings, up.stdout)
    finally:
        subprocess.run([*command, "down"], cwd=REPOSITORY, env=env, timeout=150, check=False)
        shutil.rmtree(run_dir, ignore_errors=True)


def _logs(run_dir: Path) -> str:
    return "".join(f"\n--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in run_dir.glob("logs/*.log"))
