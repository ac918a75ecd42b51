"""Fixtures for every test: one asyncio back end, a renderer that needs no model, and a whole deployment that runs once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from services.shared.contracts.prompts import PromptRenderer
from tests.deployment import Deployment, running_deployment
from tests.fakes import toy_renderer

# How long an example takes, or is in the making, says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


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
