"""GET /v1/models: base model, toolsets, and the adapters of a real store's manifests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from fastapi import FastAPI

from services.gateway.api import models
from services.gateway.api.models import PublishedReleases
from services.gateway.toolsets import Catalogue, Toolset
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.clients.adapters import AdapterStore
from services.shared.clients.manifests import manifest_name
from services.shared.contracts.adapters import AdapterSet, Manifest, Release
from tests.shared.serving import served

pytestmark = pytest.mark.anyio

BASE = "Qwen/Qwen2.5-7B-Instruct"
OLD, SELECTOR, WRITER = ("files.select--000000000001", "files.select--000000000002", "files.read_file--000000000003")


def publish(store: Path, *, promoted_at: str = "2026-11-01T12:00:00+00:00") -> None:
    """Two releases of the toolset `files`, as a manifest; whoever lists them does not read adapters."""
    newest = Release(number=2, adapters=AdapterSet(selector=SELECTOR, arguments={"read_file": WRITER}), promoted_at=promoted_at)
    oldest = Release(number=1, adapters=AdapterSet(selector=OLD), promoted_at=promoted_at)
    (store / manifest_name("files")).write_text(Manifest(toolset="files", releases=[newest, oldest]).model_dump_json())


@asynccontextmanager
async def gateway(releases: PublishedReleases | None) -> AsyncIterator[str]:
    app = FastAPI()
    install_edge(app, ServiceSettings())
    catalogue = Catalogue(BASE, [Toolset("files", [], "d" * 64)])
    app.include_router(models.router(catalogue, releases, created=7))
    async with served(app) as url:
        yield url


@asynccontextmanager
async def client(releases: PublishedReleases | None) -> AsyncIterator[openai.AsyncOpenAI]:
    async with gateway(releases) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as asking:
        yield asking


async def listed(asking: openai.AsyncOpenAI) -> dict[str, dict[str, Any]]:
    return {model.id: model.model_dump(exclude_unset=True) async for model in asking.models.list()}


async def test_base_toolsets_and_the_adapters_of_the_newest_release_are_listed(tmp_path: Path) -> None:
    publish(tmp_path)
    async with client(PublishedReleases(AdapterStore(tmp_path).look)) as asking:
        found = await listed(asking)
    assert list(found) == [BASE, "files", SELECTOR, WRITER]
    assert found[BASE] == {"id": BASE, "object": "model", "created": 7, "owned_by": "agentflux"}
    assert found["files"]["parent"] == BASE
    assert found[SELECTOR] == {
        "id": SELECTOR, "object": "model", "created": 1793534400, "owned_by": "agentflux", "parent": BASE,
        "toolset": "files", "release": 2,
    }  # fmt: skip


async def test_anthropics_client_gets_its_own_objects(tmp_path: Path) -> None:
    publish(tmp_path)
    async with (
        gateway(PublishedReleases(AdapterStore(tmp_path).look)) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as asking,
    ):
        page = await asking.models.list(limit=1000)
        one = await asking.models.retrieve("files")
    assert [model.id for model in page.data] == [BASE, "files", SELECTOR, WRITER]
    assert (page.first_id, page.last_id, page.has_more) == (BASE, WRITER, False)
    assert (one.type, one.display_name, one.created_at.timestamp()) == ("model", "files", 7)


async def test_a_publish_is_seen_after_a_while_and_many_readers_are_one(tmp_path: Path) -> None:
    store, reads = AdapterStore(tmp_path), 0

    def look() -> Any:
        nonlocal reads
        reads += 1
        return store.look()

    releases = PublishedReleases(look, fresh_s=0.5)
    async with client(releases) as asking:
        found = await asyncio.gather(*(listed(asking) for _ in range(8)))
        assert all(list(each) == [BASE, "files"] for each in found)
        assert reads == 1
        publish(tmp_path)
        async with asyncio.timeout(10):
            while WRITER not in await listed(asking):  # noqa: ASYNC110  (a file has no event)
                await asyncio.sleep(0.05)
    assert reads == 2


@pytest.mark.parametrize("name", [BASE, "files", SELECTOR])
async def test_one_model_is_found_by_its_name_slashes_included(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    async with gateway(PublishedReleases(AdapterStore(tmp_path).look)) as url, httpx.AsyncClient(base_url=url) as plain:
        for spelled in (name, name.replace("/", "%2F").replace(".", "%2E")):
            reply = await plain.get(f"/v1/models/{spelled}")
            assert (reply.status_code, reply.json()["id"]) == (200, name)


@pytest.mark.parametrize("name", [OLD, "files.select--00000000000f", "gpt-4o"])
async def test_what_does_not_serve_is_not_found(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    async with client(PublishedReleases(AdapterStore(tmp_path).look)) as asking:
        with pytest.raises(openai.NotFoundError) as caught:
            await asking.models.retrieve(name)
    assert caught.value.code == "model_not_found"


async def test_without_a_store_there_are_no_adapters() -> None:
    async with client(None) as asking:
        assert list(await listed(asking)) == [BASE, "files"]


async def test_a_store_that_cannot_be_read_hides_adapters_and_nothing_else(tmp_path: Path) -> None:
    async with client(PublishedReleases(AdapterStore(tmp_path / "gone").look)) as asking:
        assert list(await listed(asking)) == [BASE, "files"]
        assert (await asking.models.retrieve("files")).id == "files"
        with pytest.raises(openai.InternalServerError) as caught:
            await asking.models.retrieve(SELECTOR)
    assert caught.value.status_code == 503


async def test_a_store_that_hangs_holds_nobody_back_for_long() -> None:
    hang, threads = threading.Event(), 0

    def look() -> Any:
        nonlocal threads
        threads += 1
        hang.wait(20)
        return {}, {}

    try:
        async with client(PublishedReleases(look, timeout_s=0.1)) as asking:
            for _ in range(3):
                assert list(await listed(asking)) == [BASE, "files"]
        assert threads == 1
    finally:
        hang.set()


async def test_a_manifest_without_a_time_is_as_old_as_the_deployment(tmp_path: Path) -> None:
    publish(tmp_path, promoted_at="yesterday")
    async with client(PublishedReleases(AdapterStore(tmp_path).look)) as asking:
        assert (await listed(asking))[SELECTOR]["created"] == 7
