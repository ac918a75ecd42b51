"""Decides whether the machine has the GPUs that vLLM was told to use. vLLM itself finds out after a minute, in a stack trace."""

from __future__ import annotations

import argparse
import ctypes
import shlex
from collections.abc import Callable

from services.engine.settings import EngineSettings

_VARIABLE = "AGENTFLUX_ENGINE_EXTRA_ARGS"
# vLLM's flags whose product is the number of GPUs that it takes on one machine.
_FACTORS = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--prefill-context-parallel-size", "-pcp"),
    ("--data-parallel-size", "-dp"),
)  # fmt: skip
# With these, some of the GPUs are on other machines.
_ELSEWHERE = ("--nnodes", "--distributed-executor-backend", "--data-parallel-size-local")


def gpu_obstacle(settings: EngineSettings, *, present: Callable[[], int], visible: str | None) -> str | None:
    """None when the GPUs are there; else one sentence with both numbers and the next step.

    `present` counts those of the machine, `visible` is CUDA_VISIBLE_DEVICES.
    """
    if settings.device != "gpu":
        return None
    try:
        needed, flags = gpus_needed(settings.extra_args)
    except (argparse.ArgumentError, ValueError) as error:
        return f"{_VARIABLE} cannot be read: {error}"
    if needed is None or (found := visible_of(present(), visible)) >= needed:
        return None
    limit = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
    asked = f"{_VARIABLE} ({' '.join(flags)}) needs {needed}" if flags else f"device=gpu needs {needed}"
    if found == 0:
        return (
            f"{asked} GPU{'s' * (needed > 1)}, and 0 can be seen here{limit}: check `nvidia-smi`, and in a container its GPU "
            "reservation and the NVIDIA container toolkit; or set AGENTFLUX_ENGINE_DEVICE=cpu with an engine built for it"
        )
    return (
        f"{asked} GPUs, and {found} can be seen here{limit}: give this machine or container {needed}, or lower "
        f"{_VARIABLE} to {found}"
    )


def gpus_needed(extra_args: str) -> tuple[int | None, list[str]]:
    """How many GPUs vLLM takes on this machine, None if that cannot be told, and the flags that say so.

    Raises:
        argparse.ArgumentError, ValueError: the flags are no command line, or one of them is no number.
    """
    # As vLLM reads them: an underscore is as good as a dash.
    words = [_dashed(word) for word in shlex.split(extra_args)]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for names in _FACTORS:
        parser.add_argument(*names, type=int)
    for name in _ELSEWHERE:
        parser.add_argument(name)
    given = {name: value for name, value in vars(parser.parse_known_args(words)[0]).items() if value is not None}
    needed, flags = 1, []
    for name, _ in _FACTORS:
        if value := given.pop(name.strip("-").replace("-", "_"), None):
            needed *= value
            flags.append(f"{name} {value}")
    return None if given else needed, flags


def visible_of(present: int, visible: str | None) -> int:
    """How many of `present` GPUs CUDA shows: those that CUDA_VISIBLE_DEVICES lists, up to the first that is not there."""
    if visible is None:
        return present
    count = 0
    for name in (each.strip() for each in visible.split(",")):
        if not name or (name.lstrip("-").isdecimal() and not 0 <= int(name) < present):
            break
        count += 1
    return min(count, present)


def gpus_present() -> int:
    """The GPUs that NVIDIA's driver shows to this process, which in a container are those it was given; 0 without a driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
