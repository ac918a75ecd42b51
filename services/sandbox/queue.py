"""Whose turn it is when every server is at work: each tenant has a line of its own, and the lines are served in turn."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Generic, TypeVar

Item = TypeVar("Item")


# Calls that enter one server together in one turn of their tenant. A server that is about to be given away for another tenant's
# turn costs a start each time, so a turn is more than one call; it delays others by these few calls at most.
TURN = 8


class Fit(Enum):
    """What became of a call that was offered a server."""

    PLACED = auto()
    """It has one, or was refused for good: it leaves its line."""
    NOT_YET = auto()
    """Its own server is occupied, or it is not its turn for a place; others need not wait for that."""
    NO_ROOM = auto()
    """It needs a place and none is free: nobody behind may go first, or the place that gets free would never be its."""


class FairQueue(Generic[Item]):
    """Lines of waiting calls, compared by identity: `size` of them in all, `share` of each tenant."""

    def __init__(self, *, size: int, share: int) -> None:
        self._size = size
        self._share = share
        # Both in order: the next tenant first, and of each the longest waiting call first.
        self._lines: dict[str, dict[Item, None]] = {}

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def join(self, tenant: str, item: Item) -> str | None:
        """Puts a call at the end of its tenant's line; else which of the two limits forbids it, for people."""
        if len(self._lines.get(tenant, ())) >= self._share:
            return f"{self._share} calls of tenant {tenant!r} are waiting already (AGENTFLUX_SANDBOX_QUEUE_SHARE)"
        if len(self) >= self._size:
            return f"{self._size} calls are waiting already (AGENTFLUX_SANDBOX_QUEUE_SIZE)"
        self._lines.setdefault(tenant, {})[item] = None
        return None

    def leave(self, tenant: str, item: Item) -> None:
        """Takes a call out of its line; harmless when it is not there."""
        line = self._lines.get(tenant, {})
        line.pop(item, None)
        if not line:
            self._lines.pop(tenant, None)

    def serve(self, offer: Callable[[Item, bool], Fit]) -> None:
        """Offers servers to calls until there is none for whoever is next. A tenant that had its turn goes to the end.

        `offer` gets a call and whether it may take a place; otherwise only a server that is there already is for it.
        """
        served = True
        while served:
            served = False
            for tenant in list(self._lines):
                taken = self._take_turn(tenant, offer)
                if taken is None:
                    return
                served = served or taken > 0

    def _take_turn(self, tenant: str, offer: Callable[[Item, bool], Fit]) -> int | None:
        """How many calls were placed; None when the tenant needs a place that is not there."""
        taken = 0
        for item in list(self._lines[tenant]):
            match offer(item, taken == 0):
                case Fit.PLACED:
                    self.leave(tenant, item)
                    taken += 1
                case Fit.NO_ROOM:
                    return None
            if taken == TURN:
                break
        if taken and tenant in self._lines:
            self._lines[tenant] = self._lines.pop(tenant)
        return taken
