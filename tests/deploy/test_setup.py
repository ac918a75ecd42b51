"""What `make setup` says of a machine that lacks something: before it makes or downloads anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local.plan import REPOSITORY


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        ("echo v18.20.4", "Node.js v18.20.4 is too old"),
        ("exit 1", "Node.js of unknown version is too old"),
        (None, "no node on PATH"),
        ("echo v20.0.0", "a virtual environment cannot be made"),
    ],
)
def test_an_old_node_is_found_before_anything_is_made(tmp_path: Path, node: str | None, complaint: str) -> None:
    repository, programs = tmp_path / "repository", tmp_path / "bin"
    shutil.copytree(REPOSITORY / "deploy" / "requirements", repository / "deploy" / "requirements")
    programs.mkdir()
    for name in ("bash", "dirname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    # A Python that is new enough, and can do nothing else.
    scripts = {"npm": "exit 1", "node": node, "python3": '[ "$1" = -c ]'}
    for name, script in scripts.items():
        if script is not None:
            (programs / name).write_text(f"#!{programs}/bash\n{script}\n")
            (programs / name).chmod(0o755)
    environment = {"PATH": str(programs), "HOME": os.devnull}
    command = ["bash", "deploy/requirements/setup.sh", "local"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Next step: " in done.stderr
    assert not (repository / ".venv").exists()
