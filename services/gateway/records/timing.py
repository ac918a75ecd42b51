"""Where a turn's time went, as the `server-timing` header tells it: waiting, voting, writing arguments, answering."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.gateway.events import AnswerChunk, Answered, CallWritten, Event, Selected, Stopped


class Timing:
    """The parts of one turn, each the sum of its stretches; what the gateway waits for its reader belongs to none.

    `queue`: from its arrival until it may start. `select`: everything up to a decision, the look back included.
    `arguments`: until they are written. `engine`: the base model's answer.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self.seconds: dict[str, float] = {}

    def admitted(self) -> None:
        """The turn starts now; until here it waited."""
        self._add("queue")

    def note(self, event: Event) -> None:
        """The stretch that ends with `event` is over."""
        match event:
            # The most frequent one first.
            case AnswerChunk() | Answered():
                self._add("engine")
            case Selected() | Stopped():
                self._add("select")
            case CallWritten():
                self._add("arguments")

    def go_on(self) -> None:
        """The next stretch begins now."""
        self._since = self._clock()

    def header(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing, section 3): durations in milliseconds."""
        return ", ".join(f"{part};dur={seconds * 1000:.1f}" for part, seconds in self.seconds.items())

    def _add(self, part: str) -> None:
        now = self._clock()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now
