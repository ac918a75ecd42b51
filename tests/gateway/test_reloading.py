"""Files are read anew while requests run: good ones count at once, bad ones change nothing and say so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from services.gateway.reloading import Reloaded, watching
from services.gateway.toolsets import read_catalogue
from tests.gateway.backends import HELLO, TOOLS, Backends, metric, put, whole_gateway, write_toolsets

pytestmark = pytest.mark.anyio


class Number:
    """A number in a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "number"
        self.file.write_text("1")
        self.value = 1
        self.loads = 0
        outcomes = Counter("reloads", "", ["what", "outcome"], registry=CollectorRegistry())
        self.reloaded = Reloaded("numbers", files=lambda: [self.file], load=self.load, outcomes=outcomes)

    def load(self) -> None:
        self.loads += 1
        self.value = int(self.file.read_text())


@pytest.fixture
def number(tmp_path: Path) -> Number:
    return Number(tmp_path)


async def test_only_a_changed_file_is_read(number):
    number.reloaded.look()
    assert number.loads == 0
    number.file.write_text("22")
    number.reloaded.look()
    number.reloaded.look()
    assert (number.loads, number.value) == (1, 22)


@pytest.mark.parametrize("damage", ["no number", None], ids=["bad", "gone"])
async def test_a_bad_file_changes_nothing_until_it_is_mended(damage, number):
    number.file.unlink() if damage is None else number.file.write_text(damage)
    number.reloaded.look()
    assert number.value == 1
    assert "the old ones are" in (await number.reloaded.ready() or "")
    number.file.write_text("333")
    number.reloaded.look()
    assert number.value == 333
    assert await number.reloaded.ready() is None


async def test_a_link_that_is_swapped_is_a_change(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number").write_text("1")
        os.utime(tmp_path / name / "number", (1, 1))
    (tmp_path / "data").symlink_to("old")
    loads: list[None] = []
    outcomes = Counter("reloads", "", ["what", "outcome"], registry=CollectorRegistry())
    files = [tmp_path / "data" / "number"]
    reloaded = Reloaded("numbers", files=lambda: files, load=lambda: loads.append(None), outcomes=outcomes)
    (tmp_path / "next").symlink_to("new")
    os.replace(tmp_path / "next", tmp_path / "data")
    reloaded.look()
    assert loads


async def test_a_hang_up_signal_reads_anew_at_once_and_is_ignored_by_nobody_else(number):
    async with watching([number.reloaded], every_s=3600):
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(500):
            if number.loads:
                break
            await asyncio.sleep(0.01)
        assert number.loads == 1


def test_a_turn_that_began_before_its_toolset_went_keeps_its_schema(tmp_path):
    catalogue = read_catalogue("base", write_toolsets(tmp_path, "files", "mail"))
    tools = list(catalogue.default_tools("files"))
    toolset = catalogue.toolset_of(tools)
    assert toolset is not None
    catalogue.replace(read_catalogue("base", write_toolsets(tmp_path / "other", "mail")))
    assert catalogue.models == ["base", "mail"]
    assert catalogue.in_order(toolset, tools[0]) == tools[0]


async def test_toolsets_come_and_go_while_requests_run_and_none_is_dropped(tmp_path):
    backends = Backends()
    backends.delay_s = 0.02
    folder = write_toolsets(tmp_path / "toolsets", "files")
    file = folder / "mail" / "tools.json"
    statuses: list[int] = []

    async with whole_gateway(backends, toolsets_dir=folder, reload_s=0.02) as client:

        async def models() -> list[str]:
            return [each["id"] for each in (await client.get("/v1/models")).json()["data"]]

        async def until_there(*names: str) -> None:
            for _ in range(1000):
                if await models() == ["base", *names]:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(await models())

        async def some_more_requests() -> None:
            before = len(statuses)
            for _ in range(3000):
                if len(statuses) >= before + 8:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("no requests end")

        with requests_running(client, statuses):
            await some_more_requests()
            write_toolsets(folder, "mail")
            await until_there("files", "mail")
            await some_more_requests()
            put(file, "{")
            for _ in range(1000):
                if await metric(client, 'agentflux_reloads_total{outcome="refused",what="toolsets"}'):
                    break
                await asyncio.sleep(0.01)
            ready = (await client.get("/readyz")).json()
            assert "mail/tools.json is not a list" in ready["checks"]["toolsets"]
            assert ready["status"] == "degraded"
            assert await models() == ["base", "files", "mail"]
            file.unlink()
            await until_there("files")
            await some_more_requests()
            assert (await client.get("/readyz")).json()["checks"]["toolsets"] == "ok"
    assert set(statuses) == {200}


@contextmanager
def requests_running(client: httpx.AsyncClient, statuses: list[int]) -> Iterator[None]:
    """Tool calls of a toolset that is replaced meanwhile, one after another in four places."""
    body: dict[str, Any] = {**HELLO, "tools": TOOLS["mail"]}

    async def ask() -> None:
        while True:
            reply = await client.post("/v1/chat/completions", json=body)
            statuses.append(reply.status_code)

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
