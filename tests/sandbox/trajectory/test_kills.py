"""A process that is killed while it writes, twenty times at random moments, leaves a log that the next one can go on with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.sandbox.trajectory.store import files_in
from services.sandbox.trajectory.verify import verify
from tests.sandbox.test_service import ROOT
from tests.sandbox.trajectory.conftest import MakeLog

# One process imports everything once; its children write until they are killed.
WRITER = """
import os, random, signal, sys, time
from pathlib import Path
from services.sandbox.trajectory.log import TrajectoryLog
from services.sandbox.trajectory.store import TrajectoryFiles
from tests.sandbox.trajectory.conftest import HERE, Called, Knowing, Said, run

dice = random.Random(3)
for number in range(20):
    child = os.fork()
    if child == 0:
        files = TrajectoryFiles(Path(sys.argv[1]), max_file_bytes=20_000, max_bytes=1 << 30, max_age_s=3600)
        log = TrajectoryLog(files, asking=Knowing())
        log.open()
        while True:
            with log.recorded(Called(call_id="outer"), None, HERE) as record:
                run(log)
                record.finished(Said())
    time.sleep(dice.uniform(0.02, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.real
def test_twenty_kills_leave_one_end_for_each_call(tmp_path: Path, make_log: MakeLog) -> None:
    subprocess.run([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT, check=True, timeout=120)
    assert len(verify(files_in(tmp_path)).in_flight) <= 2
    make_log(tmp_path).close()
    report = verify(files_in(tmp_path))
    assert (report.problems, report.in_flight) == ([], {})
    assert report.calls > 100
