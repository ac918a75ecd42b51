"""File descriptors that bubblewrap reads from and reports to, so that nothing of it shows on a command line or on disk."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

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


class InfoPipe:
    """The pipe through which bubblewrap says which process is the first inside. Use it with `with`."""

    def __init__(self) -> None:
        read, self.write = os.pipe()
        self._read = os.fdopen(read, "rb", buffering=0)

    def __enter__(self) -> InfoPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_write()

    async def first_process(self) -> int | None:
        """A pidfd of that process; None when bubblewrap failed before there was one, or when it has ended already."""
        self._close_write()
        found = _CHILD_PID.search(await asyncio.to_thread(self._said))
        with suppress(ProcessLookupError):
            return os.pidfd_open(int(found[1])) if found else None
        return None

    def _said(self) -> bytes:
        said = b""
        with self._read:
            while b"}" not in said and (more := self._read.read(4096)):
                said += more
        return said

    def _close_write(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1
