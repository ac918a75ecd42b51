"""Who hears how far a tool is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called for each report: so much, of so much in all where that is known, and a word about it."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None: ...
