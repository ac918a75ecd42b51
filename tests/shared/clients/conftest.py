"""A store in a temporary folder, a base model of a kilobyte, and adapters for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.shared.clients.adapters import AdapterStore
from tests.adapters import publish_random, tiny_base, write_adapter


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    (tmp_path / "store").mkdir()
    return AdapterStore(tmp_path / "store", lock_wait_s=60)


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    """A folder with the two files of an adapter, ready to be published."""
    return write_adapter(tmp_path / "adapter", base)


@pytest.fixture
def publish(store: AdapterStore, base: Path, tmp_path: Path) -> Callable[..., str]:
    """Publishes another random adapter at each call."""
    count = iter(range(1000))

    def publish(**fields: Any) -> str:
        seed = next(count)
        return publish_random(store, base, tmp_path / f"random{seed}", **{"seed": seed, **fields})

    return publish
