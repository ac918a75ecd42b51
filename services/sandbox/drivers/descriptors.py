"""File descriptors that bubblewrap reads from and reports to, so that nothing of it shows on a command line or on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio

_CHILD_PID = re.compile(rb'"child-pid":\s*(\d+)')


@contextmanager
def memory_files(contents: Mapping[str, bytes]) -> Iterator[dict[str, int]]:
    """A descriptor per name, its contents ready to be read; closed on our side at the end."""
    opened: dict[str, int] = {}
    try:
        for name, content in contents.items():
            opened[name] = os.memfd_create(Path(name).name, os.MFD_CLOEXEC)
            os.write(opened[name], content)
            os.lseek(opened[name], 0, os.SEEK_SET)
        yield opened
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


class Handshake:
    """Bubblewrap says through `info` which process is the first inside, and that one, when all its mounts are made, waits at
    `block` before it goes on to the command. Use it with `with`."""

    def __init__(self) -> None:
        self._said, self.info = os.pipe()
        self.block, self._go = os.pipe()
        self._open = {self._said, self.info, self.block, self._go}

    def __enter__(self) -> Handshake:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(*self._open)

    async def first_process(self) -> int | None:
        """The pid of that process, once bubblewrap was started; None when it failed before there was one."""
        # Ours, too, would keep the pipe open.
        self._close(self.info, self.block)
        said = b""
        while b"}" not in said:
            await anyio.wait_readable(self._said)
            if not (more := os.read(self._said, 4096)):
                break
            said += more
        found = _CHILD_PID.search(said)
        return int(found[1]) if found else None

    def go_on(self) -> None:
        """Lets it run the command."""
        self._close(self._go)

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if descriptor in self._open:
                self._open.remove(descriptor)
                os.close(descriptor)
