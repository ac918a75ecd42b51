"""Whether a toolset whose servers keep dying may have another one: not for a while, then one that decides.

closed ──`limit` deaths in a row──▶ open ──a rest──▶ half open ──one success──▶ closed
                                      ◀───a death: twice the rest───┘
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_REST_S = 1.0


@dataclass
class _Record:
    deaths: int
    last: float
    why: str
    on_trial: bool = False


class CrashLoops:
    """Deaths in a row, by what they are counted for: any hashable key. Times are seconds of a monotonic clock."""

    def __init__(self, *, limit: int, max_rest_s: float) -> None:
        self._limit = limit
        self._max_rest_s = max_rest_s
        self._records: dict[tuple[str, ...], _Record] = {}

    def rest_s(self, key: tuple[str, ...], now: float) -> float | None:
        """None when a server may be tried now, which `begin` then counts; else seconds until one may."""
        record = self._records.get(key)
        if record is None or record.deaths < self._limit:
            return None
        left = record.last + self._rest(record) - now
        if left <= 0 and not record.on_trial:
            return None
        return max(left, 0.1)

    def why(self, key: tuple[str, ...]) -> tuple[int, str]:
        """How many died in a row, and what the last one left."""
        record = self._records[key]
        return record.deaths, record.why

    def begin(self, key: tuple[str, ...]) -> None:
        """A server is tried; after `limit` deaths there is one at a time."""
        if (record := self._records.get(key)) is not None:
            record.on_trial = record.deaths >= self._limit

    def died(self, key: tuple[str, ...], why: str, now: float) -> bool:
        """Counts a death; True when from here on nothing is tried for a while."""
        record = self._records.setdefault(key, _Record(0, now, why))
        if record.deaths >= self._limit and not record.on_trial:
            # It was tried before the others died: that is known already.
            return False
        record.deaths, record.last, record.why, record.on_trial = record.deaths + 1, now, why, False
        return record.deaths >= self._limit

    def lived(self, key: tuple[str, ...]) -> None:
        """It did what it should."""
        self._records.pop(key, None)

    def let_go(self, key: tuple[str, ...]) -> None:
        """Nobody saw how it went, so it says nothing."""
        if (record := self._records.get(key)) is not None:
            record.on_trial = False

    def forget(self, now: float) -> None:
        """Drops what is so long ago that it is no row any more; keys come from callers and must not pile up."""
        old = [key for key, record in self._records.items() if now - record.last > 2 * self._max_rest_s and not record.on_trial]
        for key in old:
            del self._records[key]

    def _rest(self, record: _Record) -> float:
        doublings = min(record.deaths - self._limit, 30)
        return min(FIRST_REST_S * 2.0**doublings, self._max_rest_s)
