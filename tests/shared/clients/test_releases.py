"""How a new release comes to serve: noticed, verified, warmed, flipped; or refused while the one before serves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry

from services.shared.clients.releases import ReleaseWatcher
from services.shared.contracts.adapters import AdapterCard, AdapterSet, Manifest, Release, Training
from services.shared.contracts.errors import AdapterRefused, EngineUnavailable, InvalidRequest, Unavailable
from tests.fakes import served_release

pytestmark = pytest.mark.anyio
CARD = next(iter(served_release().cards.values()))


class FakeStore:
    """A store of manifests that a test writes."""

    def __init__(self) -> None:
        self.releases: list[Release] = []
        self.damaged: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self.trained: dict[str, Training] = {}

    def promote(self, *names: str) -> int:
        number = len(self.releases) + 1
        adapters = AdapterSet(selector=names[0], arguments={name: name for name in names[1:]})
        self.releases.insert(0, Release(number=number, adapters=adapters, promoted_at=""))
        return number

    def look(self) -> tuple[dict[str, Manifest], dict[str, str]]:
        gone = not self.releases or self.unreadable
        return {} if gone else {"files": Manifest(toolset="files", releases=self.releases)}, self.unreadable

    def trainings(self) -> dict[str, Training]:
        return self.trained

    def verify(self, name: str) -> AdapterCard:
        if name in self.damaged:
            raise AdapterRefused(f"{name} was changed")
        return CARD


class FakeEngines:
    """Engines that remember what they were warmed with, or fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.warmed: list[str] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def warm(self, name: str) -> None:
        self.asked.append(name)
        await self.gate.wait()
        if self.error:
            raise self.error
        self.warmed.append(name)


class World:
    def __init__(self) -> None:
        self.store, self.engines = FakeStore(), FakeEngines()
        self.misfit = ""
        self.watcher = ReleaseWatcher(self.store, self.engines.warm, self.fits, poll_s=0.01)
        self.registry = CollectorRegistry()
        self.watcher.metrics.register(self.registry)

    def fits(self, card: AdapterCard) -> None:
        if self.misfit:
            raise AdapterRefused(self.misfit)

    @property
    def serving(self) -> int | None:
        with suppress(Unavailable):
            release = self.watcher.current("files")
            return release.number if release else None
        return None

    def counted(self, outcome: str) -> float:
        labels = {"toolset": "files", "outcome": outcome}
        return self.registry.get_sample_value("agentflux_release_changes_total", labels) or 0.0

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[World]:
        async with self.watcher.following():
            yield self

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_a_release_serves_once_every_adapter_of_it_has_answered() -> None:
    async with World().at_work() as world:
        world.engines.gate.clear()
        world.store.promote("a", "b", "c")
        await world.until(lambda: world.engines.asked == ["a"])
        assert await world.watcher.obstacle() == "the adapters are being warmed"
        world.engines.gate.set()
        await world.until(lambda: world.serving == 1)
        assert world.engines.warmed == ["a", "b", "c"]
        await world.until(lambda: world.counted("served") == 1)
        assert world.registry.get_sample_value("agentflux_release", {"toolset": "files"}) == 1


async def test_after_a_start_nobody_is_served_by_the_base_model_while_a_release_is_being_warmed() -> None:
    world = World()
    with pytest.raises(Unavailable, match="the adapters of toolset 'files' are being warmed"):
        world.watcher.current("files")
    world.store.promote("a", "b")
    world.engines.error = EngineUnavailable("it restarts")
    async with world.at_work():
        await world.until(lambda: world.counted("failed") == 1)
        with pytest.raises(Unavailable, match="being warmed; release 1 could not be warmed: it restarts"):
            world.watcher.current("files")
        assert world.watcher.current("others") is None


async def test_a_first_release_is_warmed_while_the_base_model_serves_on() -> None:
    async with World().at_work() as world:
        await asyncio.sleep(0.05)
        world.engines.gate.clear()
        world.store.promote("a")
        await world.until(lambda: world.engines.asked == ["a"])
        assert world.watcher.current("files") is None
        assert await world.watcher.obstacle() is None
        world.engines.gate.set()
        await world.until(lambda: world.serving == 1)


@pytest.mark.parametrize("end", ["refused", "gone"])
async def test_where_no_release_can_serve_after_a_start_the_base_model_does(end: str) -> None:
    world = World()
    world.store.promote("a")
    world.engines.error = InvalidRequest("rank 64 is too large") if end == "refused" else EngineUnavailable("it restarts")
    async with world.at_work():
        await world.until(lambda: world.counted("refused") + world.counted("failed") == 1)
        if end == "gone":
            world.store.releases = []
        await asyncio.sleep(0.05)
        assert world.watcher.current("files") is None
        assert await world.watcher.obstacle() is None


async def test_how_trainings_ended_is_shown_even_where_none_published_yet() -> None:
    async with World().at_work() as world:
        world.store.trained = {"files": Training(started=10, refused=20)}

        def shown(event: str) -> float | None:
            labels = {"toolset": "files", "event": event}
            return world.registry.get_sample_value("agentflux_train_last_timestamp_seconds", labels)

        await world.until(lambda: shown("refused") == 20)
        assert [shown(event) for event in ("started", "published", "failed")] == [10, 0, 0]


async def test_an_empty_store_is_no_obstacle() -> None:
    async with World().at_work() as world:
        await asyncio.sleep(0.1)
        assert await world.watcher.obstacle() is None


@pytest.mark.parametrize("reason", ["damaged", "misfit", "engine"])
async def test_what_is_refused_never_serves_and_the_release_before_serves_on(reason: str) -> None:
    async with World().at_work() as world:
        world.store.promote("a")
        await world.until(lambda: world.serving == 1)
        if reason == "damaged":
            world.store.damaged.add("b")
        elif reason == "misfit":
            world.misfit = "adapter b is of another base model"
        else:
            world.engines.error = InvalidRequest("LoRA rank 64 is greater than max_lora_rank 32")
        world.store.promote("b")
        await world.until(lambda: world.counted("refused") == 1)
        await asyncio.sleep(0.1)
        assert (world.serving, world.counted("refused")) == (1, 1)
        world.store.damaged, world.misfit, world.engines.error = set(), "", None
        world.store.promote("c")
        await world.until(lambda: world.serving == 3)


@pytest.mark.parametrize("before", ["served", "refused"])
async def test_a_number_that_comes_a_second_time_is_another_release(before: str) -> None:
    async with World().at_work() as world:
        if before == "refused":
            world.store.damaged.add("a")
        world.store.promote("a")
        await world.until(lambda: world.counted(before) == 1)
        world.store.releases = []
        world.store.promote("b")
        await world.until(lambda: world.engines.warmed[-1:] == ["b"] and world.serving == 1)
        served = world.watcher.current("files")
        assert served is not None
        assert served.adapters.selector == "b"
        assert (await world.watcher.numbered("files", 1)).adapters.selector == "b"


async def test_while_an_engine_is_away_the_release_before_serves_and_the_new_one_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.shared.clients.releases.RETRY_S", 0.05)
    async with World().at_work() as world:
        world.store.promote("a")
        await world.until(lambda: world.serving == 1)
        world.engines.error = EngineUnavailable("it restarts")
        world.store.promote("b")
        await world.until(lambda: world.counted("failed") >= 2)
        assert world.serving == 1
        world.engines.error = None
        await world.until(lambda: world.serving == 2)


async def test_a_roll_back_does_not_wait_for_engines_that_have_the_adapters() -> None:
    async with World().at_work() as world:
        for name in ("a", "b"):
            number = world.store.promote(name)
            await world.until(lambda number=number: world.serving == number)
        world.engines.gate.clear()
        world.store.promote("a")
        await world.until(lambda: world.serving == 3)


async def test_a_manifest_that_cannot_be_read_stops_nothing_but_one_that_is_gone_does() -> None:
    async with World().at_work() as world:
        world.store.promote("a")
        await world.until(lambda: world.serving == 1)
        world.store.unreadable = {"files": "it is not JSON"}
        await asyncio.sleep(0.1)
        assert world.serving == 1
        world.store.unreadable = {}
        world.store.releases = []
        await world.until(lambda: world.watcher.current("files") is None)


async def test_a_release_can_be_asked_for_before_and_after_it_serves() -> None:
    world = World()
    world.store.promote("a")
    assert (await world.watcher.numbered("files", 1)).adapters.selector == "a"
    async with world.at_work():
        world.store.promote("b")
        await world.until(lambda: world.serving == 2)
        assert (await world.watcher.numbered("files", 1)).adapters.selector == "a"
    with pytest.raises(Unavailable, match="release 9 of toolset 'files' is not in the adapter store"):
        await world.watcher.numbered("files", 9)
