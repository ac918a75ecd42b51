"""The log's files: numbered, written by one process at a time, chained across files, bounded in size and age.

A record is handed to the kernel before `append` returns, so it survives the death of the process; a power failure may take what
was written since the last `sync`. Whoever appends does so on the event loop: a write into the page cache takes microseconds, and
neither the chain nor write-ahead needs another thread then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from services.sandbox.trajectory import chain
from services.sandbox.trajectory.records import IDENTITY, aborted_row, now, record_of
from services.shared.chassis.files import append_whole
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.tools import JsonObject

PATTERN = "calls-*.jsonl"
# An idle file is followed by a new one after this, so that old records leave with it. Seconds.
MAX_FILE_AGE_S = 86400.0


class TrajectoryFiles:
    """`calls-00000001.jsonl` and on in `directory`. A file begins with a record that says which calls are in flight then.

    A new file begins after `max_file_bytes`; the oldest go when all are larger than `max_bytes`, and each `max_age_s` after its
    last record.
    """

    def __init__(self, directory: Path, *, max_file_bytes: int, max_bytes: int, max_age_s: float) -> None:
        self._directory = directory
        self._max_file_bytes = max_file_bytes
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock: int | None = None
        self._file: int | None = None
        self._replaced: list[int] = []
        self._bytes = 0
        self._began = 0.0
        self._sequence = 0
        self._previous = chain.GENESIS
        self._in_flight: dict[int, JsonObject] = {}

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def open(self) -> int:
        """Takes the directory, continues its chain, and ends the calls that a dead runner left; returns how many.

        Raises:
            Unavailable: another process writes here.
            OSError: the directory cannot be written.
        """
        self._sequence, self._previous, self._in_flight = 0, chain.GENESIS, {}
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            return self._take_over()
        except BaseException:
            # Whoever tries again must not find our own lock.
            self.close()
            raise

    def append(self, row: JsonObject) -> int:
        """Writes a record, whole or not at all; returns its number.

        Raises:
            OSError: it is not written.
        """
        if self._file is None or self._bytes >= self._max_file_bytes:
            self._begin_file()
        return self._write(row)

    def tick(self) -> list[int]:
        """Starts a new file where the old one is gone or old; returns descriptors to `sync`, from another thread if need be.

        Raises:
            OSError: a new file cannot be begun.
        """
        if self._file is not None and (not os.fstat(self._file).st_nlink or time.time() - self._began > MAX_FILE_AGE_S):
            self._begin_file()
        replaced, self._replaced = self._replaced, []
        return [*replaced, *([os.dup(self._file)] if self._file is not None else [])]

    def close(self) -> None:
        """Gives the directory back, everything on the disk."""
        for number in [*self._replaced, *([] if self._file is None else [self._file])]:
            with contextlib.suppress(OSError):
                sync([number])
        if self._lock is not None:
            os.close(self._lock)
        self._file, self._lock, self._replaced = None, None, []

    def _take_over(self) -> int:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"another sandbox writes the trajectory log in {self._directory}: give each its own directory "
                "(AGENTFLUX_SANDBOX_TRAJECTORY_DIR)"
            ) from None
        self._begin_file(torn=self._read_back())
        left = dict(self._in_flight)
        for started, call in left.items():
            self.append(aborted_row(started, call))
        return len(left)

    def _write(self, row: JsonObject) -> int:
        assert self._file is not None
        number = self._sequence + 1
        line, digest = chain.sealed({"seq": number, **row}, self._previous)
        append_whole(self._file, line, size=self._bytes)
        self._bytes += len(line)
        self._sequence, self._previous = number, digest
        self._count({"seq": number, **row})
        return number

    def _count(self, row: JsonObject) -> None:
        if row["event"] == "start":
            self._in_flight[row["seq"]] = {key: row[key] for key in IDENTITY}
        elif row["event"] == "end":
            self._in_flight.pop(row["started"], None)

    def _begin_file(self, torn: list[JsonObject] | None = None) -> None:
        paths = files_in(self._directory)
        number = _number(paths[-1]) + 1 if paths else 1
        path = self._directory / f"calls-{number:08}.jsonl"
        before = self._file, self._bytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file, self._bytes = os.open(path, flags, 0o600), 0
        in_flight = [{"started": started, **call} for started, call in self._in_flight.items()]
        try:
            self._write({"time": now(), "event": "open", "in_flight": in_flight, "torn": torn or []})
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            self._file, self._bytes = before
            raise
        if before[0] is not None:
            self._replaced.append(before[0])
        self._began = time.time()
        self._drop_old(paths)

    def _drop_old(self, paths: list[Path]) -> None:
        sizes = {path: path.stat() for path in paths}
        total = sum(found.st_size for found in sizes.values())
        for path, found in sizes.items():
            if total <= self._max_bytes and time.time() - found.st_mtime <= self._max_age_s:
                break
            path.unlink(missing_ok=True)
            total -= found.st_size

    def _read_back(self) -> list[JsonObject]:
        """Takes up the chain where the last run left it; returns the torn ends of files."""
        torn = []
        for path in reversed(files_in(self._directory)):
            before, tail = self._sequence, b""
            for line in lines_of(path):
                if line.endswith(b"\n"):
                    self._follow(line)
                else:
                    tail = line
            if tail:
                torn.append({"file": path.name, "bytes": len(tail), "sha256": sha256(tail).hexdigest()})
            if self._sequence > before:
                break
        return torn

    def _follow(self, line: bytes) -> None:
        # A line that was damaged, or was no record, is for `verify` to name; here it must not keep the service from starting.
        with contextlib.suppress(ValueError):
            row = record_of(line)
            if row["event"] == "open":
                self._in_flight = {call["started"]: {key: call[key] for key in IDENTITY} for call in row["in_flight"]}
            self._count(row)
            self._sequence, self._previous = row["seq"], row["hash"]


def files_in(directory: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted((path for path in directory.glob(PATTERN) if path.stem.removeprefix("calls-").isdecimal()), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("calls-"))


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, newlines included; the last one may lack it."""
    with path.open("rb") as file:
        yield from file


def sync(descriptors: list[int]) -> None:
    """Brings files to the disk and closes them.

    Raises:
        OSError: the disk failed; all are closed nevertheless.
    """
    try:
        for number in descriptors:
            os.fsync(number)
    finally:
        for number in descriptors:
            os.close(number)
