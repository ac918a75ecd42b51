"""Kills a writer of the adapter store at every line it executes, and looks at what is left; test_adapter_store.py runs it.

A program of its own, because it forks: `python -m tests.shared.clients.crashes publish|promote|roll_back|prune FOLDER`
prints after how many lines it killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from services.shared.chassis import files
from services.shared.clients import adapters, manifests
from services.shared.clients.adapters import STAGING, AdapterStore
from services.shared.contracts.adapters import AdapterSet
from tests.adapters import card_of, publish_random, tiny_base, write_adapter

# adapter_files is left out: it only reads, so the disk is the same before and after each of its lines.
TRACED = {module.__file__ for module in (adapters, manifests, files, shutil)}
MOST_LINES = 5000


def die_at(step: int, action: Callable[[], object]) -> bool:
    """Runs `action` in a child that is killed as it starts the `step`th line; False if it was done before."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in TRACED:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            action()
        except BaseException as error:
            print(f"step {step}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"step {step}: the writer ended with {status}"
    return status != 0


def main(action: str, folder: Path) -> int:
    """Every step of one action, each on a fresh copy of a store with an old and a present release."""
    base = tiny_base(folder / "base")
    original = folder / "original"
    original.mkdir()
    store = AdapterStore(original)
    old, present = (publish_random(store, base, folder / f"files{seed}", seed=seed) for seed in (1, 2))
    store.promote("filesystem", AdapterSet(selector=old))
    store.promote("filesystem", AdapterSet(selector=present))
    fresh = write_adapter(folder / "fresh", base, seed=3)
    card = card_of(fresh, base, seed=3)
    if action in ("promote", "prune"):
        store.publish(fresh, card)
    for step in range(1, MOST_LINES):
        copy = folder / f"copy{step}"
        shutil.copytree(original, copy)
        acts: dict[str, Callable[[AdapterStore], object]] = {
            "publish": lambda store: store.publish(fresh, card),
            "promote": lambda store: store.promote("filesystem", AdapterSet(selector=card.name)),
            "roll_back": lambda store: store.roll_back("filesystem"),
            "prune": lambda store: store.prune(keep_s=0),
        }
        act = acts[action]
        if not die_at(step, lambda act=act, copy=copy: act(AdapterStore(copy))):  # type: ignore[misc]
            return step
        check(action, AdapterStore(copy), before=present, after={"promote": card.name, "roll_back": old}.get(action, present))
        retry(act, action, AdapterStore(copy), card.name)
        shutil.rmtree(copy)
    raise AssertionError(f"{action} did not end within {MOST_LINES} lines")


def check(action: str, store: AdapterStore, *, before: str, after: str) -> None:
    """Nothing is half there, and either the old release serves or the new one does."""
    assert store.problems() == {}
    assert {adapter.name: adapter.problem for adapter in store.adapters() if adapter.problem} == {}
    manifest = store.manifest("filesystem")
    assert manifest is not None
    serving = {2: before, 3: after}[manifest.current.number]
    assert manifest.current.adapters.selector == serving, manifest.current
    assert len(manifest.releases) == manifest.current.number
    known = {name for name in os.listdir(store.root) if not name.startswith(".")}
    assert known == {"filesystem.manifest.json", *(adapter.name for adapter in store.adapters())}, known


def retry(act: Callable[[AdapterStore], object], action: str, store: AdapterStore, fresh: str) -> None:
    """The same once more does what it should have done, and a prune leaves nothing behind."""
    act(store)
    manifest = store.manifest("filesystem")
    assert manifest is not None
    if action == "publish":
        store.verify(fresh)
        # What outlived the writer is whole; so a directory that can be seen was renamed there.
        assert (store.root / fresh).stat().st_mode & 0o777 == 0o555
    if action == "promote":
        assert manifest.current.adapters.selector == fresh
    store.prune(keep_s=0)
    assert os.listdir(store.root / STAGING) == []
    assert (fresh in os.listdir(store.root)) == (action == "promote")
    assert store.verify(manifest.current.adapters.selector or "")


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
