"""Whether a service that kept failing is to be asked again: not for a while, then with one request that decides. And whether
a request whose connection was lost may be sent once more.

closed ──N failures in a row──▶ open ──wait_s──▶ half open ──one success──▶ closed
                                  ◀──────────a failure──────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from services.shared.clients.health import RetryBudget

State = Literal["closed", "half open", "open"]


class Breaker:
    """Opens after `failures` in a row, for `wait_s` seconds. Whoever asks reports how it went, by one of three methods."""

    def __init__(self, *, failures: int, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = failures
        self._wait_s = wait_s
        self._clock = clock
        self._in_a_row = 0
        self._opened = 0.0
        self._on_trial = False
        self._budget = RetryBudget()
        self.retries = 0

    @property
    def state(self) -> State:
        """What the next request would meet."""
        if self._in_a_row < self._patience:
            return "closed"
        return "open" if self._on_trial or self._clock() < self._opened + self._wait_s else "half open"

    def rests_s(self) -> float | None:
        """None when the service may be asked now, which then has to be reported; else seconds until it may."""
        if (state := self.state) == "open":
            return max(0.1, self._opened + self._wait_s - self._clock())
        self._on_trial = state == "half open"
        return None

    def deposit(self) -> None:
        """Counts one request, ten of which pay for a retry."""
        self._budget.deposit()

    def may_retry(self) -> bool:
        """Takes one retry, if there is one, and returns whether there was."""
        if not self._budget.withdraw():
            return False
        self.retries += 1
        return True

    def succeeded(self) -> None:
        """The service answered as it should."""
        self._in_a_row, self._on_trial = 0, False

    def failed(self) -> None:
        """It did not."""
        if self._in_a_row >= self._patience and not self._on_trial:
            # A request from before it opened: that is known already.
            return
        self._in_a_row += 1
        self._opened, self._on_trial = self._clock(), False

    def let_go(self) -> None:
        """Nobody waited for the answer, so it says nothing."""
        self._on_trial = False
