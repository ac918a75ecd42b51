"""Fixtures for every test: one asyncio back end, a renderer that needs no model, and a whole deployment that runs once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.shared.contracts.prompts import PromptRenderer
from tests.deployment import Deployment, running_deployment
from tests.fakes import toy_renderer


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def renderer() -> PromptRenderer:
    return toy_renderer()


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    with running_deployment() as running:
        yield running
