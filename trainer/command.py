"""What the command lines of all steps have in common: an error is one sentence and the exit status 1."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable

from safetensors import SafetensorError

from services.shared.contracts.errors import AgentFluxError

# What the world may do to a step, each with a message that says so; a full disk has three of these names.
EXPECTED = (AgentFluxError, LookupError, OSError, RuntimeError, ValueError, SafetensorError, sqlite3.Error)


def status_of(step: Callable[[], None]) -> int:
    """Runs `step` and gives the exit status; what is EXPECTED is told on stderr."""
    try:
        step()
    except EXPECTED as error:
        print(f"trainer: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0
