"""Whether an engine is to be asked, judged by what was seen of it, and how often a request may be tried a second time.

up ──refused once, or lost or silent twice in a row──▶ down ──rested, answers, is warm──▶ trial ──one reply──▶ up
                                                        ◀────────────anything against it───────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

State = Literal["up", "down", "trial"]
Evidence = Literal["refused", "lost", "silent"]
"""Against an engine: it refused a connection, it dropped one that had a request, it left a look at it without an answer."""

# So many times in a row until an engine counts as down. A refused connection leaves no doubt.
PATIENCE = 2
# Seconds until an engine that went down may come back: at first, and at most, after doubling with each failed return.
SHORTEST_REST_S, LONGEST_REST_S = 1.0, 30.0
# Seconds between two looks at an engine, and until one without an answer has failed. Together they bound how long a dead
# engine is asked: INTERVAL_S + PATIENCE * LOOK_TIMEOUT_S = 2.5 s.
INTERVAL_S, LOOK_TIMEOUT_S = 0.5, 1.0

# So many requests pay for one retry, and so many are remembered for it.
REQUESTS_PER_RETRY, REQUESTS_SAVED = 10, 500

_Name = TypeVar("_Name")


class Health:
    """What is known of one engine. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.state: State = "up"
        self.inflight = 0
        self._in_a_row: dict[Evidence, int] = {}
        self._returns_failed = 0
        self._rests_until = 0.0

    def fails(self, evidence: Evidence, now: float) -> bool:
        """Notes what speaks against the engine; returns whether it went down by this."""
        self._in_a_row[evidence] = self._in_a_row.get(evidence, 0) + 1
        doubtful = evidence != "refused" and self._in_a_row[evidence] < PATIENCE
        if self.state == "down" or (self.state == "up" and doubtful):
            return False
        self.state = "down"
        self.stays_out(now)
        return True

    def stays_out(self, now: float) -> None:
        """Lets an engine that is down rest, longer each time until it has proved itself."""
        self._rests_until = now + min(LONGEST_REST_S, SHORTEST_REST_S * 2**self._returns_failed)
        self._returns_failed += 1

    def is_rested(self, now: float) -> bool:
        """Whether an engine that is down may be let back."""
        return self.state == "down" and now >= self._rests_until

    def goes_on_trial(self) -> None:
        """It answers again and is warm; its next request decides."""
        self.state = "trial"
        self._in_a_row.clear()

    def replies(self) -> None:
        """Notes that a request was served; a trial ends with it."""
        self._in_a_row.pop("lost", None)
        if self.state == "trial":
            self.state, self._returns_failed = "up", 0

    def answers(self) -> None:
        """Notes that a look at the engine was answered: it lives, which does not say that it serves."""
        self._in_a_row.pop("silent", None)


def to_be_asked(engines: Mapping[_Name, Health]) -> list[_Name]:
    """The engines that may get a request now; empty only if `engines` is.

    One on trial gets one request at a time while another one is up. The last ones are never given up: where all are down, to
    ask is the only way to know better.
    """
    up = [name for name, health in engines.items() if health.state == "up"]
    trials = [name for name, health in engines.items() if health.state == "trial"]
    if up:
        return up + [name for name in trials if engines[name].inflight == 0]
    return trials or list(engines)


class RetryBudget:
    """A token bucket, as in Finagle: retries add a tenth at most to what the engines get, also while all of them fail. It starts
    empty, or each start of a service would be an exception."""

    def __init__(self) -> None:
        self._requests = 0

    def deposit(self) -> None:
        """Counts one request."""
        self._requests = min(REQUESTS_SAVED, self._requests + 1)

    def withdraw(self) -> bool:
        """Takes one retry, if there is one; returns whether there was."""
        if self._requests < REQUESTS_PER_RETRY:
            return False
        self._requests -= REQUESTS_PER_RETRY
        return True
