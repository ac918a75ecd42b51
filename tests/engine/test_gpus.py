"""How many GPUs vLLM is told to use, how many it can see, and what is said when these differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.engine.gpus import gpu_obstacle, gpus_needed, gpus_present, visible_of
from services.engine.settings import EngineSettings


def why(extra_args: str = "", *, present: int, visible: str | None = None, device: str = "gpu") -> str | None:
    settings = EngineSettings(model_dir=Path("model"), device=device, extra_args=extra_args)
    return gpu_obstacle(settings, present=lambda: present, visible=visible)


@pytest.mark.parametrize(
    ("extra_args", "needed"),
    [
        ("", 1),
        ("--max-num-seqs 8", 1),
        ("--tensor-parallel-size 4", 4),
        ("--tensor_parallel_size=2 --quantization awq", 2),
        ("-tp 2 -pp=2", 4),
        ("--pipeline-parallel-size 3 --data-parallel-size 2", 6),
        ("-tp 8 --nnodes 2", None),
        ("-tp 8 --distributed-executor-backend ray", None),
    ],
)
def test_the_flags_say_how_many_gpus_are_needed(extra_args: str, needed: int | None) -> None:
    assert gpus_needed(extra_args)[0] == needed


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("", 0), ("-1", 0), ("0,2", 2), ("3,4,1", 1), ("GPU-8932f937, GPU-a1", 2), ("NoDevFiles", 1)],
)
def test_cuda_shows_the_listed_gpus_up_to_the_first_that_is_not_there(visible: str | None, count: int) -> None:
    assert visible_of(4, visible) == count


def test_enough_gpus_are_no_obstacle_and_without_the_gpu_device_nobody_counts() -> None:
    assert why("-tp 2", present=2) is None
    assert why("-tp 2", present=8) is None
    assert why("-tp 2 --nnodes 2", present=0) is None
    assert why("-tp 2", present=0, device="cpu") is None


def test_too_few_gpus_are_told_with_both_numbers_and_the_flag_to_change() -> None:
    said = why("--tensor-parallel-size 4", present=2)
    assert "(--tensor-parallel-size 4) needs 4 GPUs, and 2 can be seen here: give this machine or container 4" in said
    assert "AGENTFLUX_ENGINE_EXTRA_ARGS" in said
    assert "1 can be seen here (CUDA_VISIBLE_DEVICES=1)" in why("-tp 2", present=2, visible="1")


def test_no_gpu_at_all_is_told_with_what_to_check() -> None:
    said = why(present=0)
    assert "device=gpu needs 1 GPU, and 0 can be seen here" in said
    assert "nvidia-smi" in said
    assert "AGENTFLUX_ENGINE_DEVICE=cpu" in said


@pytest.mark.parametrize("extra_args", ["--tensor-parallel-size two", "--tensor-parallel-size", "-tp '2"])
def test_flags_that_cannot_be_read_are_told(extra_args: str) -> None:
    assert "AGENTFLUX_ENGINE_EXTRA_ARGS cannot be read: " in why(extra_args, present=8)


def test_the_gpus_of_this_machine_are_those_that_its_driver_lists() -> None:
    assert gpus_present() == len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
