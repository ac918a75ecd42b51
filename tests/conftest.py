"""Fixtures for every test: one asyncio back end, and a renderer that needs no model."""

from __future__ import annotations

import pytest

from services.shared.contracts.prompts import PromptRenderer
from tests.fakes import toy_renderer


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def renderer() -> PromptRenderer:
    return toy_renderer()
