"""An engine that was told to use more GPUs than there are: it says both numbers at once, and goes on when they are there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.model_folder import write_model
from tests.engine.running import FAKE_VLLM, eventually, running_engine

pytestmark = pytest.mark.real

# NVIDIA's management library as far as it is asked, on a machine whose GPUs a file counts.
NVML = """
#include <stdio.h>
#include <stdlib.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) {
  FILE *file = fopen(getenv("GPUS_HERE"), "r");
  int read = file ? fscanf(file, "%u", count) : 0;
  if (file) fclose(file);
  return read == 1 ? 0 : 999;
}
"""
TWO = {"PYTHONPATH": str(FAKE_VLLM), "AGENTFLUX_ENGINE_DEVICE": "gpu", "AGENTFLUX_ENGINE_EXTRA_ARGS": "--tensor-parallel-size 2"}


def test_missing_gpus_are_told_with_both_numbers_before_vllm_is_started_and_it_starts_when_they_are_there(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED, missing GPUs: a C compiler makes the stand-in for NVIDIA's library (apt-get install gcc)")
    (tmp_path / "nvml.c").write_text(NVML)
    library = [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "libnvidia-ml.so.1"), str(tmp_path / "nvml.c")]
    subprocess.run(library, check=True, timeout=60)
    here = tmp_path / "gpus"
    here.write_text("0")
    machine = {"LD_LIBRARY_PATH": str(tmp_path), "GPUS_HERE": str(here), "CUDA_VISIBLE_DEVICES": "0,1"}
    with running_engine(tmp_path, write_model(tmp_path / "model"), **TWO, **machine) as engine:

        def says(*words: str) -> bool:
            told = engine.get("/readyz").json().get("checks", {}).get("vllm", "")
            return all(word in told for word in words)

        asked = "AGENTFLUX_ENGINE_EXTRA_ARGS (--tensor-parallel-size 2) needs 2 GPUs, and"
        eventually(lambda: says(asked, "0 can be seen here", "nvidia-smi"), within_s=30)
        assert engine.get("/readyz").status_code == 503
        assert engine.get("/livez").status_code == 200
        here.write_text("1")
        eventually(lambda: says(asked, "1 can be seen here (CUDA_VISIBLE_DEVICES=0,1)"), within_s=30)
        assert engine.status()["vllm_pid"] is None
        assert engine.descendants() == []
        here.write_text("2")
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=60)
    assert "Traceback" not in engine.log.read_text()
