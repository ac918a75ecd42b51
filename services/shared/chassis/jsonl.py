"""Lines of JSON in rotating files, for whoever must not wait for a disk: a thread writes, and what it cannot keep is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from services.shared.chassis.files import append_whole

log = structlog.get_logger()

Row = Callable[[], Any]
"""Makes the value of one line; called in the writing thread."""

# Rows that wait for the disk. Each holds on to its request.
MAX_WAITING = 128
MAX_LINE = 1 << 20
_COMPLAIN_EVERY_S = 60.0


class JsonLines:
    """Appends rows to `<folder>/<name>-<time>-<id>.jsonl`, a new file after `max_bytes`.

    Of all files of this name in the folder, other processes' included, the `max_files` written to last are kept. `count` is
    called with what became of each row: `written`, `busy` (the disk does not keep up), `too_large` (over 1 MiB), `disk`, or
    `failed` (no row could be made).

    Raises:
        OSError: the folder does not exist and cannot be made.
    """

    def __init__(self, folder: Path, name: str, *, max_bytes: int, max_files: int, count: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._max_bytes, self._max_files = max_bytes, max_files
        self._count = count
        self._waiting: queue.Queue[Row | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._file: int | None = None
        self._path = folder
        self._bytes = 0
        self._full = ""
        self._complained = -_COMPLAIN_EVERY_S

    @property
    def trouble(self) -> str | None:
        """None while the disk takes rows, else why it did not take the last one."""
        return f"rows are lost: {self._folder} cannot be written: {self._full}" if self._full else None

    def put(self, row: Row) -> None:
        """Takes a row to be written soon; never waits, never raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name=f"{self._name} log", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(row)
        except queue.Full:
            self._lost("busy", f"{MAX_WAITING} rows are waiting to be written")

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Writes what waits, for at most `timeout_s`."""
        if self._thread is not None:
            await asyncio.to_thread(self._close, self._thread, timeout_s)

    def _close(self, thread: threading.Thread, timeout_s: float) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
            thread.join(timeout_s)

    def _write_all(self) -> None:
        while (row := self._waiting.get()) is not None:
            try:
                line = json.dumps(row(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
            except Exception as error:
                # Its message may quote what the row would have kept secret.
                self._lost("failed", f"a row could not be made: {type(error).__name__}")
                continue
            if len(line) > MAX_LINE:
                self._lost("too_large", f"a row of {len(line)} bytes; at most {MAX_LINE} are kept")
                continue
            try:
                self._append(line)
                self._full = ""
                self._count("written")
            except OSError as error:
                self._end_file()
                self._full = error.strerror or str(error)
                self._lost("disk", str(error))
        self._end_file()

    def _append(self, line: bytes) -> None:
        # Another process may have dropped the file as one of too many.
        if self._file is not None and (self._bytes >= self._max_bytes or not os.fstat(self._file).st_nlink):
            self._end_file()
        if self._file is None:
            self._begin_file()
        assert self._file is not None
        append_whole(self._file, line, size=self._bytes)
        is_first, self._bytes = not self._bytes, self._bytes + len(line)
        # Only for a file that took its row: on a full disk the old ones would go one by one, for nothing.
        if is_first:
            self._drop_old()

    def _begin_file(self) -> None:
        name = f"{self._name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}.jsonl"
        self._path, self._bytes = self._folder / name, 0
        # What people said to a model is for its operator alone.
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _drop_old(self) -> None:
        older = sorted((path for path in self._folder.glob(f"{self._name}-*.jsonl") if path != self._path), key=_written_at)
        for path in older[: max(0, len(older) + 1 - self._max_files)]:
            path.unlink(missing_ok=True)

    def _end_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
                if not self._bytes:
                    self._path.unlink(missing_ok=True)
            self._file = None

    def _lost(self, outcome: str, reason: str) -> None:
        self._count(outcome)
        if time.monotonic() - self._complained >= _COMPLAIN_EVERY_S:
            self._complained = time.monotonic()
            log.error("rows are not logged", log=self._name, folder=str(self._folder), reason=reason)


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
