"""Steps that do not need one another, side by side: two trainings on a thread each get further than in turn on two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from trainer.progress import Bar, Tick

Result = TypeVar("Result")


class Stopped(Exception):
    """Another step failed, or the process is to end."""


def at_once(steps: Sequence[Callable[[Bar], Result]], bar: Bar, most: int) -> list[Result]:
    """What the steps give, in their order; at most `most` run at a time, with equal shares of torch's threads.

    A step is given the bar on which it has to show how far it is: when another one fails, or this thread is interrupted, it ends
    at its next tick. The error that came first is raised.
    """
    ended = threading.Event()
    failures: list[BaseException] = []

    @contextmanager
    def stoppable(name: str) -> Iterator[Tick]:
        with bar(name) as tick:

            def checked(done: int, total: int) -> None:
                if ended.is_set():
                    raise Stopped
                tick(done, total)

            yield checked

    def guarded(step: Callable[[Bar], Result]) -> Result:
        try:
            if ended.is_set():
                raise Stopped
            return step(stoppable)
        except BaseException as error:
            failures.append(error)
            ended.set()
            raise

    threads = torch.get_num_threads()
    workers = max(1, min(most, threads, len(steps)))
    with ThreadPoolExecutor(workers, "at-once", torch.set_num_threads, (threads // workers,)) as pool:
        # A signal can come as soon as the first of them runs.
        try:
            running = [pool.submit(guarded, step) for step in steps]
            # One that comes just as this thread goes to sleep does not wake it: it is seen at the next look.
            while wait(running, timeout=1).not_done:
                pass
        except BaseException:
            ended.set()
            raise
    if failures:
        raise failures[0]
    return [one.result() for one in running]
