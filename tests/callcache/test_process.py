"""`python -m services.callcache`, as an operator starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from services.shared.clients.callcache import CallCacheClient
from tests.callcache.calls import look_back, repeated
from tests.valkey import Valkey, free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]


class Service(NamedTuple):
    """A running process of the service."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path


@pytest.fixture
def service(valkey: Valkey, tmp_path: Path) -> Iterator[Service]:
    port = free_port()
    environment = {
        **os.environ,
        "AGENTFLUX_CALLCACHE_PORT": str(port),
        "AGENTFLUX_CALLCACHE_REDIS_URL": valkey.url,
        "AGENTFLUX_CALLCACHE_LADDER__BLOCK": "4",
    }
    command = [sys.executable, "-m", "services.callcache"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log, cwd=Path(__file__).parents[2])
    yield Service(process, f"http://127.0.0.1:{port}", tmp_path / "log")
    process.kill()
    process.wait()


async def test_the_service_serves_logs_json_and_stops_when_told(service, valkey):
    client = CallCacheClient(service.url, timeout_s=5)
    async with asyncio.timeout(60):
        while await client.ready():
            assert service.process.poll() is None, service.log.read_text()
            await asyncio.sleep(0.1)
    found = await client.look_back(look_back(repeated(4)))
    assert (found.shared, found.standings[0].step) == (True, "block")

    valkey.stop()
    assert not (await client.look_back(look_back(repeated(4)))).shared
    await client.aclose()

    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.process.wait, 20) in (0, -signal.SIGTERM)
    records = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [record["event"] for record in records if "store" in record["event"]] == ["store is down"]
