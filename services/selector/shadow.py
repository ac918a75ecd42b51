"""A candidate votes on some of the requests, beside the adapter that serves; nobody hears of it but a counter.

How often both agree says what a promotion would change, before anything changes. Nothing is executed, and nobody waits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from services.shared.contracts.adapters import ServedRelease
from services.shared.contracts.errors import AgentFluxError, Unavailable
from services.shared.contracts.selection import Selection, SelectionRequest, ToolSelector

# A candidate that falls behind is asked less, and takes no more of the engine than this.
MOST_AT_ONCE = 4

Outcome = Literal["agreed", "differed", "unfit", "failed", "skipped"]


@dataclass(frozen=True)
class Candidate:
    """Implements `Releases`: as if `release` served its toolset."""

    release: ServedRelease

    def current(self, toolset: str) -> ServedRelease | None:
        """The candidate, for its toolset."""
        return self.release if toolset == self.release.toolset else None

    async def numbered(self, toolset: str, number: int) -> ServedRelease:
        """Unavailable: a candidate writes no arguments."""
        raise Unavailable(f"release {number} of toolset {toolset!r} is not a candidate's")


class Shadow:
    """Has `candidate` vote on a `share` (0 to 1) of the requests for `toolset`, after the real vote is over."""

    def __init__(
        self,
        candidate: ToolSelector,
        *,
        toolset: str,
        adapter: str,
        share: float,
        count: Callable[[Outcome], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._candidate = candidate
        self._toolset = toolset
        self._adapter = adapter
        self._share = share
        self._count = count
        self._chance = chance
        self._running: set[asyncio.Task[None]] = set()

    def consider(self, request: SelectionRequest, selection: Selection) -> None:
        """Perhaps has the candidate vote on what was decided just now."""
        if request.toolset is None or request.toolset.name != self._toolset or self._chance() >= self._share:
            return
        if len(self._running) >= MOST_AT_ONCE:
            self._count("skipped")
            return
        task = asyncio.create_task(self._vote(request, selection))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Breaks off what still runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _vote(self, request: SelectionRequest, selection: Selection) -> None:
        try:
            other = await self._candidate.select(request)
        except AgentFluxError:
            self._count("failed")
            return
        if other.adapter != self._adapter:
            # It has learned other tools by heart than these.
            self._count("unfit")
        else:
            self._count("agreed" if other.tool == selection.tool else "differed")
