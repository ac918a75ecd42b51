"""Whether the tests of the pipe to a hostile server try nearly all that it can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIPE = ("services/sandbox/frames.py", "services/sandbox/transport.py")
TESTS = ("tests/sandbox/test_frames.py", "tests/sandbox/test_transport.py")


def test_nearly_every_branch_of_the_pipe_is_tried(tmp_path: Path) -> None:
    (tmp_path / "options").write_text(f"[run]\nbranch = True\ninclude = {','.join(PIPE)}\ndata_file = {tmp_path / 'data'}\n")

    def run(*command: str) -> None:
        # Its plain measurer: what runs around this test may measure by itself.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    run("run", f"--rcfile={tmp_path / 'options'}", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    run("json", f"--rcfile={tmp_path / 'options'}", "-o", str(tmp_path / "report"))
    files = json.loads((tmp_path / "report").read_text())["files"]
    for file in PIPE:
        found = files[file]["summary"]
        assert found["covered_branches"] >= 0.95 * found["num_branches"], (file, files[file]["missing_branches"])
        assert found["percent_covered"] >= 95, (file, files[file]["missing_lines"])
