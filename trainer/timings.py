"""How a training went, as its steps wrote it down line by line: what each took, and the loss. Half a line is no line."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

CURVE = "curve.jsonl"
TIMINGS = "timings.jsonl"
Row = TypeVar("Row")


class Timing(BaseModel):
    """What a step of the pipeline did and took.

    `samples` are conversations, rows or decisions; `seconds` wall time; `peak_rss_bytes` the most memory that the process had had
    by its end. What a kill cut off left no line: neither what it did nor what it took is counted.
    """

    step: str
    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    peak_rss_bytes: int = 0

    def counting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows; each that is taken is a sample."""
        for row in rows:
            self.samples += 1
            yield row


@contextmanager
def timed(work: Path, step: str) -> Iterator[Timing]:
    """Adds a line about the block to the timings of `work`; whoever knows its samples and tokens sets them."""
    timing, started = Timing(step=step), time.monotonic()
    try:
        yield timing
    finally:
        timing.seconds = round(time.monotonic() - started, 3)
        timing.peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with (work / TIMINGS).open("a") as file:
            file.write(timing.model_dump_json() + "\n")


def read_curve(path: Path) -> list[tuple[int, float]]:
    """Step and loss, ascending. A run that was killed left half a line, or steps that were taken again: the last one counts."""
    found: dict[int, float] = {}
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            found[int(entry["step"])] = float(entry["loss"])
        except (ValueError, TypeError, KeyError):
            continue
    return sorted(found.items())


def read_timings(path: Path) -> list[Timing]:
    """One a step, in order: a step that was gone on with did and took the sum."""
    found: dict[str, Timing] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            one = Timing.model_validate_json(line)
        except ValidationError:
            continue
        known = found.setdefault(one.step, Timing(step=one.step))
        known.seconds += one.seconds
        known.samples += one.samples
        known.tokens += one.tokens
        known.peak_rss_bytes = max(known.peak_rss_bytes, one.peak_rss_bytes)
    return list(found.values())
