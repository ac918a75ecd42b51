"""A sandbox seen from the host: its pipes, how it is ended, and what has to be cleared away once its last process is gone."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

_Pipe = TypeVar("_Pipe", asyncio.StreamReader, asyncio.StreamWriter)

# How long a process has to obey another signal than SIGKILL.
LISTENING_S = 2.0

# The event loop itself does not keep tasks alive.
_clearing: set[asyncio.Task[int]] = set()


class Child:
    """Implements `driver.Process`. `end` is the signal that ends the whole tree when it reaches `target`, a pidfd.

    `leftovers` is closed when the tree is gone. Without a target the process itself gets the signal, and SIGKILL if it is still
    there `LISTENING_S` later.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        target: int | None = None,
        end: signal.Signals = signal.SIGKILL,
        leftovers: AsyncExitStack | None = None,
    ) -> None:
        self._process = process
        # Not through `process`: what it does before it sends a signal can take the exit status from whoever waits for it.
        self._target = handle(process.pid) if target is None else target
        self._end = end
        self.stdin = _opened(process.stdin)
        self.stdout = _opened(process.stdout)
        self.stderr = _opened(process.stderr)
        self._cleared = asyncio.create_task(self._clear(leftovers or AsyncExitStack()))
        _clearing.add(self._cleared)
        self._cleared.add_done_callback(_clearing.discard)

    @property
    def pid(self) -> int:
        """Of the outermost process, on the host."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit status; above 128 it was a signal."""
        return await asyncio.shield(self._cleared)

    def kill(self) -> None:
        """Ends the whole tree."""
        self._signal(self._end)
        if self._end is not signal.SIGKILL:
            # Whoever could stop the process could keep it from hearing the other one.
            asyncio.get_running_loop().call_later(LISTENING_S, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._target is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._target, number)

    async def _clear(self, leftovers: AsyncExitStack) -> int:
        async with leftovers:
            try:
                return await self._process.wait()
            finally:
                target, self._target = self._target, None
                if target is not None:
                    os.close(target)


def end(first: int | None, process: asyncio.subprocess.Process) -> None:
    """Ends a sandbox of which nobody has a `Child`: `first` is a pidfd of its first process, where there is one."""
    if first is None:
        with suppress(ProcessLookupError):
            process.kill()
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(first, signal.SIGKILL)
    os.close(first)


def handle(pid: int) -> int | None:
    """A pidfd, which never means another process; None when this one is gone already."""
    with suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def _opened(pipe: _Pipe | None) -> _Pipe:
    assert pipe is not None, "the process was started without pipes"
    return pipe
