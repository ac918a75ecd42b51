"""Lines in rotating files: nobody waits for them, no half lines, and no more files than were asked for."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.shared.chassis.jsonl import MAX_LINE, MAX_WAITING, JsonLines

pytestmark = pytest.mark.anyio


class Log:
    """A log with its counts at hand."""

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 20, max_files: int = 4) -> None:
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.written = threading.Event()
        self.lines = JsonLines(folder, "log", max_bytes=max_bytes, max_files=max_files, count=self._count)

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.written.set()

    def put(self, value: Any) -> None:
        self.lines.put(lambda: value)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("log-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)

    def rows(self) -> list[Any]:
        return [json.loads(line) for path in self.files() for line in path.read_text().splitlines()]


async def test_rows_come_out_as_they_went_in_for_the_operators_eyes_only(tmp_path: Path) -> None:
    log = Log(tmp_path / "made" / "here")
    rows = [{"n": n, "text": "ünï\ncode", "half": "\ud83d"} for n in range(20)]
    for row in rows:
        log.put(row)
    await log.lines.aclose()
    assert log.rows() == [{**row, "half": "?"} for row in rows]
    assert log.outcomes == {"written": 20}
    assert [path.stat().st_mode & 0o777 for path in log.files()] == [0o600]


async def test_a_full_file_is_followed_by_another_and_the_oldest_go(tmp_path: Path) -> None:
    log = Log(tmp_path, max_bytes=100, max_files=3)
    (tmp_path / "other-x.jsonl").write_text("mine\n")
    for n in range(50):
        log.put({"n": n, "filler": "x" * 40})
    await log.lines.aclose()
    assert len(log.files()) == 3
    assert sum(path.stat().st_size for path in log.files()) <= 3 * 200
    assert log.rows()[-1]["n"] == 49
    assert (tmp_path / "other-x.jsonl").exists()


async def test_a_disk_that_does_not_keep_up_loses_rows_and_holds_nobody_up(tmp_path: Path) -> None:
    log, go_on = Log(tmp_path), threading.Event()
    log.lines.put(go_on.wait)
    for n in range(2 * MAX_WAITING):
        log.put(n)
    assert log.outcomes["busy"] >= MAX_WAITING - 1
    go_on.set()
    await log.lines.aclose()
    assert log.outcomes["written"] + log.outcomes["busy"] == 2 * MAX_WAITING + 1


async def test_a_row_that_cannot_be_made_or_is_too_large_costs_only_itself(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.lines.put(lambda: 1 / 0)
    log.put("x" * MAX_LINE)
    log.put({"kept": True})
    await log.lines.aclose()
    assert log.rows() == [{"kept": True}]
    assert log.outcomes == {"failed": 1, "too_large": 1, "written": 1}


FULL_DISK = """
import asyncio, resource, sys
from collections import Counter
from pathlib import Path
from services.shared.chassis.jsonl import JsonLines

async def main(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    outcomes = Counter()
    def count(outcome):
        outcomes[outcome] += 1
        if outcome == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    lines = JsonLines(folder, "log", max_bytes=1 << 20, max_files=4, count=count)
    for n in range(3):
        lines.put(lambda n=n: {"n": n, "filler": "x" * 50})
    await lines.aclose()
    print(dict(outcomes))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_is_counted_leaves_no_half_line_and_is_survived(tmp_path: Path) -> None:
    """There is room for the first row and half of the second; the third finds room again."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    rows = [json.loads(line)["n"] for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(rows) == [0, 2]
    assert "{'written': 2, 'disk': 1}" in done.stdout
    assert "rows are not logged" in done.stdout


async def test_a_file_that_another_process_dropped_is_begun_anew(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.put(1)
    assert await asyncio.to_thread(log.written.wait, 5)
    log.files()[0].unlink()
    log.put(2)
    await log.lines.aclose()
    assert log.rows() == [2]


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Log(tmp_path / "file" / "folder")
