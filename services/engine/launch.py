"""Decides how vLLM is launched: settings become one command line and one environment. Starts nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.engine.settings import EngineSettings

# The module that keeps vLLM's processes from outliving us; see there.
TETHER = "services.engine.tether"
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Launch:
    """One command and its whole environment."""

    argv: list[str]
    env: dict[str, str]


def plan_launch(settings: EngineSettings, *, cores: Sequence[int], parent: int, inherited: Mapping[str, str]) -> Launch:
    """The launch of vLLM by process `parent` on a machine that lets us use `cores`."""
    tether = [str(settings.python), "-m", TETHER, str(parent)]
    return Launch(
        argv=[*tether, *_common_args(settings), *_device_args(settings)],
        env={**inherited, **_environment(settings, cores, inherited.get("PYTHONPATH"))},
    )


def socket_path(settings: EngineSettings) -> Path | None:
    """The unix socket vLLM listens on, absolute; None when it listens on a port."""
    if not settings.vllm_url.startswith("unix:"):
        return None
    return Path(settings.vllm_url.removeprefix("unix:")).absolute()


def _common_args(settings: EngineSettings) -> list[str]:
    return [
        "--model", str(settings.model_dir.absolute()),
        "--served-model-name", settings.served_model_name,
        *_listen_args(settings),
        "--max-model-len", str(settings.max_model_len),
        # One request of the selector asks for the scores of up to 128 tokens.
        "--max-logprobs", "128",
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--enable-request-id-headers",
        "--scheduling-policy", "priority",
        "--max-num-queued-reqs", str(settings.max_queued_requests),
        # By default vLLM aborts what is in flight when it is told to stop.
        "--shutdown-timeout", str(math.ceil(settings.drain_timeout_s)),
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        *_lora_args(settings),
    ]  # fmt: skip


def _listen_args(settings: EngineSettings) -> list[str]:
    if socket := socket_path(settings):
        return ["--uds", str(socket)]
    host, port = settings.vllm_url.removeprefix("http://").split(":")
    return ["--host", host, "--port", port]


def _lora_args(settings: EngineSettings) -> list[str]:
    if not settings.max_loras:
        return []
    slots = str(settings.max_loras)
    return ["--enable-lora", "--max-loras", slots, "--max-cpu-loras", slots, "--max-lora-rank", str(settings.max_lora_rank)]


def _device_args(settings: EngineSettings) -> list[str]:
    extra = shlex.split(settings.extra_args)
    if settings.device == "gpu":
        return extra
    # Only whole blocks are reused between prompts: 32 is the least that CPU attention can do, 128 what it does by itself.
    # Eager, because compiling needs gcc and a minute, and for a small model gains nothing.
    return ["--dtype", "bfloat16", "--block-size", "32", "--enforce-eager", *extra]


def _environment(settings: EngineSettings, cores: Sequence[int], python_path: str | None) -> dict[str, str]:
    env = {
        # The tether has to be found, by whichever interpreter.
        "PYTHONPATH": f"{_REPOSITORY}:{python_path}" if python_path else str(_REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_DISABLE_LOG_LOGO": "1",
        # The tether holds only processes that begin with an interpreter of their own.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if settings.device == "cpu":
        used = list(cores)[: settings.threads]
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
            # "auto" would leave one core to the scheduler, half of the machine when there are two; threads that wander over
            # the cores decode at half the speed.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, used)),
            "OMP_NUM_THREADS": str(len(used)),
        }
    return env
