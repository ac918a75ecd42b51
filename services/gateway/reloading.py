"""Files that are read anew while the gateway runs: whoever writes a bad one keeps what was there, and is told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from prometheus_client import Counter

log = structlog.get_logger()

Mark = tuple[str, int, int, int]


class Reloaded:
    """One thing that comes from files. `load` reads them and puts the result in force, or raises ValueError or OSError."""

    def __init__(self, what: str, *, files: Callable[[], Iterable[Path]], load: Callable[[], None], outcomes: Counter) -> None:
        self._what = what
        self._files = files
        self._load = load
        self._outcomes = outcomes
        self._seen = self._marks()
        self._problem: str | None = None

    async def ready(self) -> str | None:
        """None, or why the files are not what is in force."""
        return self._problem

    def look(self, *, anew: bool = False) -> None:
        """Reads the files if any of them changed, or with `anew` in any case."""
        marks = self._marks()
        if marks == self._seen and not anew:
            return
        self._seen = marks
        try:
            self._load()
        except (ValueError, OSError) as error:
            self._problem = f"the new {self._what} are not in force, the old ones are: {error}"
            self._outcomes.labels(self._what, "refused").inc()
            log.error("not reloaded", what=self._what, error=str(error))
        else:
            self._problem = None
            self._outcomes.labels(self._what, "loaded").inc()
            log.info("reloaded", what=self._what)

    def _marks(self) -> list[Mark]:
        """What changes when a file does; links are followed, as Kubernetes swaps one to change a mounted file."""
        marks = []
        for file in self._files():
            with contextlib.suppress(OSError):
                stat = file.stat()
                marks.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return marks


@asynccontextmanager
async def watching(things: Sequence[Reloaded], *, every_s: float) -> AsyncIterator[None]:
    """Looks at the files every `every_s` seconds, and reads them anew at SIGHUP."""
    hang_up = asyncio.Event()

    async def watch() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await hang_up.wait()
            anew = hang_up.is_set()
            hang_up.clear()
            for thing in things:
                # In a thread: a network volume that hangs must not hold up replies.
                await asyncio.to_thread(thing.look, anew=anew)

    # Signals reach only the main thread.
    loop, listens = asyncio.get_running_loop(), threading.current_thread() is threading.main_thread()
    if listens:
        loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        if listens:
            loop.remove_signal_handler(signal.SIGHUP)
        task.cancel()
        await asyncio.wait({task})
