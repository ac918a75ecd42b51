"""What the tests of the plugin share: an ear for its events."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.engine.vllm_plugin.events import MARKER, log


class Lines(logging.Handler):
    """Keeps what is logged; a line that is two lines is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert "\n" not in record.getMessage()
        self.lines.append(record.getMessage())


@pytest.fixture
def told() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The events so far."""
    ear, level = Lines(), log.level
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    yield lambda: [json.loads(line.removeprefix(f"{MARKER} ")) for line in ear.lines]
    log.removeHandler(ear)
    log.setLevel(level)
