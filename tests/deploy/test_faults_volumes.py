"""Volumes that are full: turns go on, readiness and metrics name the volume, what was kept stays, and it goes on by itself.

The adapter store, full or read-only, is in tests/shared/clients/test_adapter_store_faults.py; the sandbox's log in
tests/sandbox/trajectory/test_log.py; the trainer's in tests/trainer/test_faults.py; a full Valkey in
tests/gateway/records/test_store.py.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.shared.clients.test_adapter_store_faults import leave_free, mounted
from tests.stack import running_stack

pytestmark = [pytest.mark.anyio, pytest.mark.real]

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
TURN = {"model": "base", "messages": [{"role": "user", "content": "call get_weather"}], "tools": [WEATHER]}


async def test_a_full_volume_costs_the_decision_log_its_new_rows_and_no_turn_and_no_old_row(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        log = disk / "log"
        async with running_stack(decision_log=log, decision_log_files=2) as stack, httpx.AsyncClient(base_url=stack.url) as http:

            async def turn() -> None:
                reply = await http.post("/v1/chat/completions", json=TURN)
                assert reply.status_code == 200, reply.text

            async def told() -> Any:
                return (await http.get("/readyz")).json()["checks"]["decision_log"]

            async def counted(outcome: str) -> int:
                page = (await http.get("/metrics")).text.splitlines()
                name = f'agentflux_decision_log_rows_total{{outcome="{outcome}"}} '
                return next((int(float(line.removeprefix(name))) for line in page if line.startswith(name)), 0)

            async def until(outcome: str, count: int) -> None:
                async with asyncio.timeout(10):
                    while True:
                        if await counted(outcome) >= count:
                            return
                        await asyncio.sleep(0.02)

            await turn()
            await until("written", 1)
            assert await told() == "ok"
            kept = {path.name: path.read_bytes() for path in log.iterdir()}

            # The page of the last row is begun; it takes a few more to need another one.
            leave_free(disk, 0)
            for _ in range(8):
                await turn()
            await until("disk", 3)
            assert await told() == f"rows are lost: {log} cannot be written: No space left on device"
            assert all((log / name).read_bytes().startswith(rows) for name, rows in kept.items())
            assert all(path.stat().st_size for path in log.iterdir()), "an empty file is left"

            os.unlink(disk / "ballast")
            before = await counted("written")
            await turn()
            await until("written", before + 1)
            assert await told() == "ok"
            assert all((log / name).read_bytes().startswith(rows) for name, rows in kept.items())
