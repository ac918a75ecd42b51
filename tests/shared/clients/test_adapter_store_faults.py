"""The adapter store when several write at once, when a writer dies, and when the disk is full or read-only."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.shared.chassis.files import locked
from services.shared.clients.adapters import LOCK_FILE, STAGING, AdapterStore
from services.shared.contracts.adapters import AdapterCard, AdapterSet
from services.shared.contracts.errors import Unavailable
from tests.adapters import card_of, publish_random, write_adapter

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534


def in_processes(work: Callable[..., object], each: list[tuple[Any, ...]]) -> list[Any]:
    """What `work` gives in a process for each tuple of arguments, all of them started at the same moment."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(each), _meet_at, [context.Barrier(len(each))]) as pool:
        return pool.starmap(_together, [(work, arguments) for arguments in each], chunksize=1)


def _meet_at(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _together(work: Callable[..., object], arguments: tuple[Any, ...]) -> object:
    _barrier.wait(60)
    return work(*arguments)


def promote_many(root: Path, name: str, times: int) -> list[int]:
    store = AdapterStore(root, lock_wait_s=60)
    return [store.promote("filesystem", AdapterSet(selector=name)).number for _ in range(times)]


def test_promotes_of_several_processes_get_a_number_each(store, publish):
    names = [publish() for _ in range(4)]
    numbers = in_processes(promote_many, [(store.root, name, 25) for name in names])
    assert sorted(number for own in numbers for number in own) == list(range(1, 101))
    assert all(own == sorted(own) for own in numbers)
    promoted = {number: name for own, name in zip(numbers, names, strict=True) for number in own}
    for release in store.manifest("filesystem").releases:
        assert release.adapters.selector == promoted[release.number]


def publish_all(root: Path, folders: list[Path], cards: list[str]) -> list[str]:
    store = AdapterStore(root)
    return [store.publish(*one) for one in zip(folders, map(AdapterCard.model_validate_json, cards), strict=True)]


def test_several_processes_publish_the_same_adapters(store, base, tmp_path):
    folders = [write_adapter(tmp_path / f"files{seed}", base, seed=seed) for seed in range(20)]
    cards = [card_of(folder, base) for folder in folders]
    names = in_processes(publish_all, [(store.root, folders, [card.model_dump_json() for card in cards])] * 4)
    assert names == [[card.name for card in cards]] * 4
    assert os.listdir(store.root / STAGING) == []


def test_a_lock_that_is_held_is_not_waited_for_without_end(store, publish):
    for name in (publish(), publish()):
        store.promote("filesystem", AdapterSet(selector=name))
    impatient = AdapterStore(store.root, lock_wait_s=0.05)
    actions: list[Callable[[], object]] = [
        lambda: impatient.promote("filesystem", AdapterSet()),
        lambda: impatient.roll_back("filesystem"),
        lambda: impatient.prune(keep_s=0),
    ]
    with locked(store.root / LOCK_FILE, wait_s=1):
        for action in actions:
            with pytest.raises(Unavailable, match=r"another process has held .*\.lock"):
                action()
    assert impatient.roll_back("filesystem").number == 3


@pytest.mark.parametrize(("action", "least"), [("publish", 100), ("promote", 100), ("roll_back", 100), ("prune", 50)])
def test_a_writer_may_die_at_any_line(action, least):
    # In memory where there is such a place: the kernel keeps what a killed process wrote, so no disk is needed.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        program = [sys.executable, "-m", "tests.shared.clients.crashes", action, folder]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > least


def test_a_store_that_is_not_there_is_a_fault_of_the_volume(tmp_path, base, adapter):
    store, card = AdapterStore(tmp_path / "nowhere"), card_of(adapter, base)
    actions: list[Callable[[], object]] = [
        store.manifests, store.problems, store.adapters, lambda: store.publish(adapter, card), lambda: store.verify(card.name),
        lambda: store.promote("filesystem", AdapterSet()), lambda: store.prune(keep_s=0),
    ]  # fmt: skip
    for action in actions:
        with pytest.raises(Unavailable, match="nowhere"):
            action()


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"NOT TESTED, full and read-only disks: mount needs root here ({mount.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def leave_free(disk: Path, pages: int) -> None:
    """Fills the disk but for so many pages."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(disk)
    ballast.write_bytes(bytes((free.f_bavail - pages) * free.f_frsize))


def test_a_full_disk_changes_nothing_whenever_it_fills_up(tmp_path, base):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = AdapterStore(disk)
        name = publish_random(store, base, tmp_path / "first")
        store.promote("filesystem", AdapterSet(selector=name))
        fresh = write_adapter(tmp_path / "fresh", base, rank=64)
        card = card_of(fresh, base)

        published = pages_needed(disk, store, lambda: store.publish(fresh, card))
        promoted = pages_needed(disk, store, lambda: store.promote("filesystem", AdapterSet(selector=card.name)))
        assert published > 5
        assert promoted >= 1

        unused = write_adapter(tmp_path / "unused", base, rank=64, seed=5)
        (disk / "ballast").unlink()
        store.publish(unused, card_of(unused, base))
        leave_free(disk, 0)
        assert len(store.prune(keep_s=0)) == 1
        assert store.publish(unused, card_of(unused, base))


def pages_needed(disk: Path, store: AdapterStore, action: Callable[[], object]) -> int:
    """Tries with more and more space until it works, and looks each time at what a failure left."""
    before = store.manifests(), store.adapters()
    for pages in range(100):
        leave_free(disk, pages)
        try:
            action()
            return pages
        except Unavailable as error:
            message = error.message
        assert "No space left on device" in message
        assert (store.manifests(), AdapterStore(disk).adapters()) == before
        assert os.listdir(disk / STAGING) == []
    raise AssertionError("it did not work with 100 pages either")


def test_a_read_only_store_serves_and_says_that_it_cannot_be_written(tmp_path, base, adapter):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = AdapterStore(disk)
        names = [publish_random(store, base, tmp_path / f"files{seed}", seed=seed) for seed in (1, 2)]
        for name in names:
            store.promote("filesystem", AdapterSet(selector=name))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        actions: list[Callable[[], object]] = [
            lambda: store.publish(adapter, card_of(adapter, base)),
            lambda: store.promote("filesystem", AdapterSet()),
            lambda: store.roll_back("filesystem"),
            lambda: store.prune(keep_s=0),
        ]
        for action in actions:
            with pytest.raises(Unavailable, match="Read-only file system"):
                action()
        reader = AdapterStore(disk)
        assert reader.verify(names[1])
        assert reader.manifest("filesystem").current.number == 2
        assert reader.publish(tmp_path / "files2", reader.verify(names[1])) == names[1]


def test_an_ordinary_user_can_do_all_of_it(base):
    # Root may rename a directory that nobody may write; others may not.
    if os.geteuid():
        pytest.skip("this is what all other tests show")
    with tempfile.TemporaryDirectory() as place:
        folder = write_adapter(Path(place) / "adapter", base)
        card = card_of(folder, base)
        (Path(place) / "store").mkdir()
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        user = multiprocessing.get_context("spawn").Process(target=use_as_nobody, args=(Path(place), card.model_dump_json()))
        user.start()
        user.join(60)
        assert user.exitcode == 0
        assert sorted(os.listdir(f"{place}/store")) == [".lock", STAGING, "filesystem.manifest.json"]


def use_as_nobody(place: Path, card: str) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    store = AdapterStore(place / "store")
    name = store.publish(place / "adapter", AdapterCard.model_validate_json(card))
    store.promote("filesystem", AdapterSet(selector=name))
    assert store.prune(keep_s=0) == []
    (store.root / "filesystem.manifest.json").unlink()
    assert store.prune(keep_s=0) == [name]
    assert os.listdir(store.root / STAGING) == []
    assert store.promote("filesystem", AdapterSet()).number == 1
    (store.root / "closed").mkdir(mode=0o555)
    with pytest.raises(Unavailable, match="Permission denied"):
        AdapterStore(store.root / "closed").promote("filesystem", AdapterSet())
    (store.root / "closed").rmdir()
