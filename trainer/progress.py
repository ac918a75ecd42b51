"""How far a step is, as it is shown to whoever watches: bars on a terminal, lines in a log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[int, int], None]
# Shows a step by name; the step tells how far it is.
Bar = Callable[[str], AbstractContextManager[Tick]]

_SECONDS_PER_LINE = 30.0


class TimeLeft:
    """How long a step still takes, by its pace since it was first asked: one that goes on after a kill does not begin at 0."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None

    def at(self, done: int, total: int) -> float:
        """Seconds; NaN as long as nothing more is done than at first."""
        now = self._clock()
        first, since = self._first = self._first or (done, now)
        return (now - since) * (total - done) / (done - first) if done > first else math.nan


@contextmanager
def silent(name: str) -> Iterator[Tick]:
    """A `Bar` that shows nothing."""
    yield lambda done, total: None


@contextmanager
def progress(clock: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """`with bar("name") as tick: tick(done, total)`: how far each step is and the time it will still take, on stderr.

    A terminal gets a bar per step. Anything else, such as the log of a container, would get nothing until the end that
    way: there it is a line when a step begins, one every 30 seconds, and one when it is done. `clock`: seconds, for the lines.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name: _lines(name, clock)
        return
    columns = (
        TextColumn("{task.description:>28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:

        @contextmanager
        def bar(name: str) -> Iterator[Tick]:
            task = shown.add_task(name, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
            # A step that could not tell how far it was would look as if it never ended.
            if shown.tasks[task].total is None:
                shown.update(task, completed=1, total=1)

        yield bar


@contextmanager
def _lines(name: str, clock: Callable[[], float]) -> Iterator[Tick]:
    began = told = clock()
    time_left = TimeLeft(clock)

    def tick(done: int, total: int) -> None:
        nonlocal told
        now, left = clock(), time_left.at(done, total)
        if done >= total or now - told < _SECONDS_PER_LINE:
            return
        told = now
        _tell(
            f"{name}: {done} of {total}, {_duration(now - began)} taken"
            + ("" if math.isnan(left) else f", {_duration(left)} left")
        )

    _tell(f"{name}: begins")
    yield tick
    _tell(f"{name}: done in {_duration(clock() - began)}")


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))


def _tell(line: str) -> None:
    # Line and end in one write: steps at once would come between the two.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
