"""Services as processes of their own, as an operator starts them: they can be killed, started again, and given a wrong clock.

They are forked from one process that has imported everything; eleven starts from nothing would take most of a minute.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import time_machine
import uvicorn

from deploy.local import base_model
from deploy.local.plan import LocalSettings
from tests.talking_engine import TalkingEngine
from tests.valkey import free_port

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["__main__", "tests.deploy.running"]
    + [f"services.{name}.app" for name in ("gateway", "selector", "arguments", "callcache", "sandbox")]
)
TALKING_PORT = "TALKING_ENGINE_PORT"


class Service:
    """The `main` of a service on a port of its own, with these settings and none of this environment's."""

    def __init__(self, main: Callable[[], object], folder: Path, settings: dict[str, str], *, ahead_s: float = 0.0) -> None:
        self.port = free_port()
        self.log = folder / f"{main.__module__}.{self.port}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTFLUX_")}
        env = {**kept, **{name: value.replace("{port}", str(self.port)) for name, value in settings.items()}}
        self._arguments = (main, env, self.log, ahead_s)
        self._process: ForkServerProcess | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns at once."""
        self._process = FORKED.Process(target=_run, args=self._arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        """As a crash would; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def checks(self) -> dict[str, Any]:
        """What /readyz says, with its status code as `code`; that is 0 while nobody listens."""
        try:
            reply = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=10)
        except httpx.TransportError:
            return {"code": 0, "checks": {}}
        return {"code": reply.status_code, **reply.json()}


def _run(main: Callable[[], object], env: dict[str, str], log: Path, ahead_s: float) -> None:
    """In the new process: `main` with this environment and log, on a machine whose clock is `ahead_s` seconds ahead."""
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    if ahead_s:
        time_machine.travel(time.time() + ahead_s, tick=True).start()
    main()


@contextlib.contextmanager
def started(*services: Service) -> Iterator[None]:
    """All of them, killed at the end."""
    try:
        for service in services:
            service.start()
        yield
    finally:
        for service in services:
            service.kill()


def model_folder() -> Path:
    """The small model's tokenizer and template."""
    model = LocalSettings().model
    base_model.prepare(model, say=lambda _: None)
    return model


def engine(folder: Path) -> Service:
    """An engine that does what the user says."""
    return Service(_serve_engine, folder, {TALKING_PORT: "{port}"})


def _serve_engine() -> None:
    app = TalkingEngine(LocalSettings().model).app
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ[TALKING_PORT]), log_level="warning")


def eventually(fact: Callable[[], Any], *, within_s: float = 30.0, unless: Callable[[], str] = lambda: "") -> Any:
    """The first true value of `fact`; fails after `within_s` with what `unless` says."""
    deadline = time.monotonic() + within_s
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s; {unless()}"
        time.sleep(0.05)
    return value
