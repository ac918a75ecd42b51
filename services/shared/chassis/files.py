"""Files that outlive a crash: on the disk when the call returns, and written by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.shared.contracts.errors import Unavailable

_CHUNK_BYTES = 1 << 20
_LOCK_POLL_S = 0.02


def write_durably(path: Path, content: Iterable[bytes]) -> None:
    """A new read-only file, synced. Its name lasts once the directory is synced too.

    Raises:
        OSError: the file exists, or cannot be written.
    """
    with path.open("xb") as file:
        for chunk in content:
            file.write(chunk)
        file.flush()
        # Some network file systems have no modes.
        with contextlib.suppress(OSError):
            os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())


def append_whole(descriptor: int, data: bytes, *, size: int) -> None:
    """All of `data` at the end of a file that has `size` bytes, or none of it: half a line would spoil the next one.

    Raises:
        OSError: it cannot be written.
    """
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def chunks_of(path: Path) -> Iterator[bytes]:
    """The content of a file, one MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextlib.contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """The descriptor of a directory, which is no symlink."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory last: what was created, renamed or removed in it."""
    with opened_directory(path) as directory:
        os.fsync(directory)


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float) -> Iterator[None]:
    """Holds the lock of the file at `path`, against other threads and processes; on a network file system, other hosts too.

    The kernel releases it when the holder dies.

    Raises:
        Unavailable: somebody else held it for `wait_s` seconds.
        OSError: the file cannot be opened for writing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise Unavailable(f"another process has held {path} for {wait_s:g} s; try again when it is done")
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
