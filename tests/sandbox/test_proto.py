"""The contract on the wire: lints, and the generated code is that of the file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent

pytestmark = pytest.mark.real


@pytest.mark.skipif(not shutil.which("buf", path=str(SCRIPTS)), reason="buf-bin is not installed")
def test_the_contract_lints() -> None:
    done = subprocess.run([SCRIPTS / "buf", "lint", ROOT / "proto"], capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""


@pytest.mark.skipif(not shutil.which("protoc-gen-mypy", path=str(SCRIPTS)), reason="mypy-protobuf is not installed")
def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generators = [f"--{name}_out={tmp_path}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    source = "services/shared/pb/toolrunner/v1/toolrunner.proto"
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "services/shared/pb=proto", *generators, source]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(made) == 4
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run make proto"
