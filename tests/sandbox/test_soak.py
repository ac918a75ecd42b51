"""Nothing is left of what ran, in small. AGENTFLUX_SOAK="10000 1000 20" (calls, kills, SIGKILLs of the service) is the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.real
def test_no_process_descriptor_or_file_is_left_behind() -> None:
    numbers = os.environ.get("AGENTFLUX_SOAK", "120 12 2").split()
    # In a process of its own: it adopts orphans, and keeps doing so.
    done = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.soak", *numbers],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
