"""Fixtures for the call cache: a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.valkey import Valkey, start_valkey


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with start_valkey() as server:
        yield server
