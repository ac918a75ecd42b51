"""How far a step is, as it is shown to whoever watches: bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[int, int], None]
# Shows a step by name; the step tells how far it is.
Bar = Callable[[str], AbstractContextManager[Tick]]


@contextmanager
def progress() -> Iterator[Bar]:
    """`with bar("name") as tick: tick(done, total)`: one line per step, with the time it will still take."""
    columns = (
        TextColumn("{task.description:>28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:

        @contextmanager
        def bar(name: str) -> Iterator[Tick]:
            task = shown.add_task(name, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
            # A step that could not tell how far it was would look as if it never ended.
            if shown.tasks[task].total is None:
                shown.update(task, completed=1, total=1)

        yield bar
