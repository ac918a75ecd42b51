"""Tells a person how far things are: lines with the time since the start, and a spinner where there is a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.status import Status


class Progress:
    """Prints to a terminal or a log alike."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(f"[{self.elapsed_s:6.1f} s] {line}", markup=False)

    def wait(self, seconds: float) -> None:
        """Waits, visibly."""
        with self.busy("waiting"):
            time.sleep(seconds)

    def busy(self, what: str) -> Status:
        """A spinner for as long as the context lasts; nothing in a log."""
        return self._console.status(f"{what} ({self.elapsed_s:.0f} s)")

    def show(self, text: str) -> None:
        """Text as it is."""
        self._console.print(text, markup=False)
