"""When the starter adapters are promoted, and when they keep out of the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.starters import NOTE, seed
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import AdapterSet
from tests.adapters import publish_random, tiny_base


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny_base(folder / "base")
        self.starters, self.store = folder / "starters", folder / "run" / "adapters"
        self.starters.mkdir()
        self.said: list[str] = []

    def offer(self, number: int) -> str:
        store = AdapterStore(self.starters)
        name = publish_random(store, self.base, self.folder / f"made-{number}", seed=number)
        store.promote("filesystem", AdapterSet(selector=name))
        return name

    def seeded(self) -> tuple[int, str | None, str]:
        seed(self.starters, self.store, say=self.said.append)
        release = AdapterStore(self.store).manifests()["filesystem"].current
        return release.number, release.adapters.selector, release.note


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_starters_there_is_an_empty_store(world: World) -> None:
    seed(world.folder / "nowhere", world.store, say=world.said.append)
    assert AdapterStore(world.store).manifests() == {}


def test_the_starters_become_the_first_release_once(world: World) -> None:
    name = world.offer(1)
    assert world.seeded() == (1, name, NOTE)
    assert world.seeded() == (1, name, NOTE)
    assert world.said == ["filesystem: 1 starter adapters, release 1"]


def test_newer_starters_replace_older_ones(world: World) -> None:
    world.offer(1)
    world.seeded()
    name = world.offer(2)
    assert world.seeded() == (2, name, NOTE)


def test_adapters_of_your_own_are_never_replaced(world: World) -> None:
    world.offer(1)
    world.seeded()
    store = AdapterStore(world.store)
    own = publish_random(store, world.base, world.folder / "own", seed=9)
    store.promote("filesystem", AdapterSet(selector=own), note="trained here")
    world.offer(2)
    assert world.seeded() == (2, own, "trained here")
