"""Two real gateway processes are restarted one after the other under load: no stream is cut, and both exit with 0."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.gateway.backends import HELLO, WORDS, Backends, urls
from tests.shared.serving import served
from tests.valkey import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]


class Gateway:
    """One gateway process on a port that stays the same over restarts."""

    def __init__(self, backends: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {**urls(backends), "port": self.port, "toolsets_dir": folder, "drain_timeout_s": 60}
        self._environment = {f"AGENTFLUX_GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, client: httpx.AsyncClient) -> None:
        """Returns when it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.gateway", env={**os.environ, **self._environment}, stderr=asyncio.subprocess.DEVNULL
        )
        for _ in range(600):
            try:
                if (await client.get(f"{self.url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError("the gateway does not become ready")

    async def leave(self) -> int:
        """Tells it to leave; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(90):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Switch:
    """What a load balancer does: the next gateway in turn, and another one where it refuses."""

    def __init__(self, client: httpx.AsyncClient, gateways: list[Gateway]) -> None:
        self._client = client
        self._turns = itertools.cycle(gateways)
        self.outcomes: Counter[str] = Counter()
        self.begun = 0

    async def stream(self) -> None:
        """One chat, streamed to its end; `outcomes` says how it went."""
        for _ in range(100):
            try:
                if (outcome := await self._stream(next(self._turns).url)) is not None:
                    self.outcomes[outcome] += 1
                    return
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.05)
        self.outcomes["nobody answered"] += 1

    async def _stream(self, url: str) -> str | None:
        text = ""
        try:
            async with self._client.stream("POST", f"{url}/v1/chat/completions", json={**HELLO, "stream": True}) as reply:
                if reply.status_code == 503:
                    assert reply.headers["connection"] == "close"
                    return None
                self.begun += 1
                async for piece in reply.aiter_text():
                    text += piece
        except httpx.ConnectError:
            raise
        except httpx.TransportError as error:
            # A connection that is lost before there is a reply may be tried again; one that is lost within is a cut stream.
            return f"cut: {type(error).__name__}" if text else None
        whole = "data: [DONE]\n\n" in text and all(f'"{word}"' in text for word in WORDS) and '"error"' not in text
        return "whole" if whole else "cut"


async def test_200_streams_survive_a_rolling_restart(tmp_path):
    backends = Backends()
    backends.gap_s = 0.15
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with served(backends.app) as url, httpx.AsyncClient(timeout=60, limits=limits) as client:
        gateways = [Gateway(url, tmp_path) for _ in range(2)]
        switch = Switch(client, gateways)
        try:
            for gateway in gateways:
                await gateway.start(client)
            async with asyncio.TaskGroup() as group:
                for gateway in gateways:
                    before = switch.begun
                    for _ in range(100):
                        group.create_task(switch.stream())
                        await asyncio.sleep(0.01)
                    for _ in range(1000):
                        if switch.begun >= before + 50:
                            break
                        await asyncio.sleep(0.01)
                    assert await gateway.leave() == 0
                    await gateway.start(client)
        finally:
            for gateway in gateways:
                await gateway.kill()
    assert switch.outcomes == {"whole": 200}
