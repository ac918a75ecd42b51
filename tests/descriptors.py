"""What this process holds open."""

from __future__ import annotations

import os
from contextlib import suppress


def behind(*descriptors: int) -> set[str]:
    """The file, pipe or socket that each stands for."""
    return {os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in descriptors}


def still_open() -> set[str]:
    """What is behind all descriptors of this process. Look for one's own in it: libraries' threads open and close theirs at any
    time, so how many there are says nothing."""
    found: set[str] = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # Closed since.
            found |= behind(int(descriptor))
    return found
