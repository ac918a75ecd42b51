"""Puts the starter adapters that come with the repository into the deployment's own adapter store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import CONFIG_FILE, WEIGHTS_FILE

NOTE = "starter adapters"


def seed(starters: Path, store: Path, *, say: Callable[[str], None]) -> None:
    """Promotes the starters of each toolset that has no release yet, or one of older starters; never over adapters of others.

    `starters` is laid out as a store is.
    """
    store.mkdir(parents=True, exist_ok=True)
    if not starters.is_dir():
        return
    source, target = AdapterStore(starters), AdapterStore(store)
    for toolset, offered in source.manifests().items():
        adapters = offered.current.adapters
        present = target.manifest(toolset)
        if present and (present.current.adapters == adapters or present.current.note != NOTE):
            continue
        for name in adapters.names:
            _copy(source, name, target)
        release = target.promote(toolset, adapters, note=NOTE)
        say(f"{toolset}: {len(adapters.names)} starter adapters, release {release.number}")


def _copy(source: AdapterStore, name: str, target: AdapterStore) -> None:
    card = source.verify(name)
    with tempfile.TemporaryDirectory() as folder:
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(source.root / name / file, Path(folder) / file)
        target.publish(Path(folder), card)
