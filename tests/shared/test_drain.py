"""A service that is told to leave: says so, refuses what is new, finishes what runs, and exits with 0."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.valkey import free_port

pytestmark = pytest.mark.real

SERVICE = """
import asyncio, sys
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from services.shared.chassis.http import install_edge, serve
from services.shared.chassis.settings import ServiceSettings

def create_app(settings):
    app = FastAPI()
    install_edge(app, settings)

    @app.get("/counts/{to}")
    async def counts(to: int):
        async def numbers():
            for number in range(to):
                yield f"{number}\\n"
                await asyncio.sleep(0.05)
        return StreamingResponse(numbers())

    return app

settings = ServiceSettings(port=int(sys.argv[1]), drain_timeout_s=float(sys.argv[2]))
serve(create_app, settings, service="counter")
"""


@contextlib.contextmanager
def service(*, drain_timeout_s: float = 20) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that counts aloud, and where it answers."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(port), str(drain_timeout_s)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/livez").status_code == 200:
                    break
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


class Listener:
    """Reads a stream in a thread of its own, until it ends or is cut."""

    def __init__(self, url: str, to: int) -> None:
        self.heard: list[str] = []
        self.was_cut = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(f"{url}/counts/{to}",), daemon=True)
        self._thread.start()
        assert self._begun.wait(20)

    def _listen(self, url: str) -> None:
        try:
            with httpx.stream("GET", url, timeout=30) as reply:
                for line in reply.iter_lines():
                    self._begun.set()
                    self.heard.append(line)
        except httpx.HTTPError:
            self.was_cut = True

    def end(self) -> list[str]:
        self._thread.join(40)
        return self.heard


def test_it_leaves_with_0_and_without_delay_when_nothing_runs() -> None:
    with service() as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_what_runs_is_finished_and_what_is_new_is_refused_until_then() -> None:
    with service() as (process, url), httpx.Client(base_url=url) as client:
        assert client.get("/readyz").json()["status"] == "ready"
        listener = Listener(url, 60)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert client.get("/livez").status_code == 200
        refused = client.get("/counts/1")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "service_unavailable"
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"] == "1"
        assert process.poll() is None
        assert listener.end() == [str(number) for number in range(60)]
        assert process.wait(10) == 0


def test_after_its_time_it_leaves_whatever_runs() -> None:
    with service(drain_timeout_s=0.5) as (process, url):
        listener = Listener(url, 10_000)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - began < 10
        listener.end()
        assert listener.was_cut


def test_a_second_signal_ends_it_at_once() -> None:
    with service(drain_timeout_s=60) as (process, url):
        Listener(url, 10_000)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(10)
