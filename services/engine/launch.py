"""Decides how vLLM is launched: settings become one command line and one environment. Starts nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.engine.capacity import LoraRoom
from services.engine.settings import EngineSettings

# The module that keeps vLLM's processes from outliving us; see there.
TETHER = "services.engine.tether"
_REPOSITORY = Path(__file__).resolve().parents[2]
# The distribution that consists of our plugin's entry point; see services/engine/vllm_plugin.
_PLUGIN_ENTRY = Path(__file__).resolve().parent / "vllm_plugin" / "entry"


@dataclass(frozen=True)
class Launch:
    """One command and its whole environment."""

    argv: list[str]
    env: dict[str, str]


def plan_launch(
    settings: EngineSettings, *, room: LoraRoom | None, cores: Sequence[int], parent: int, inherited: Mapping[str, str]
) -> Launch:
    """The launch of vLLM by process `parent` on a machine that lets us use `cores`; without `room` it serves no adapters."""
    tether = [str(settings.python), "-m", TETHER, str(parent)]
    return Launch(
        argv=[*tether, *_common_args(settings), *_lora_args(room), *_device_args(settings)],
        env={**inherited, **_environment(settings, cores, inherited.get("PYTHONPATH")), **_plugin_environment(settings, room)},
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
        # vLLM has routes that load adapters from any path, without asking who is there.
        "--middleware", "services.engine.vllm_plugin.edge.ClosedRoutes",
        *_grounding_args(settings),
        *(["--otlp-traces-endpoint", f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"] if settings.otlp_endpoint else []),
    ]  # fmt: skip


def _listen_args(settings: EngineSettings) -> list[str]:
    if socket := socket_path(settings):
        return ["--uds", str(socket)]
    host, port = settings.vllm_url.removeprefix("http://").split(":")
    return ["--host", host, "--port", port]


def _grounding_args(settings: EngineSettings) -> list[str]:
    # vLLM does not start with both, and whoever asked for drafts wants them.
    if any(flag.startswith(("--spec", "-sc")) for flag in shlex.split(settings.extra_args)):
        return []
    return ["--logits-processors", "services.engine.vllm_plugin.grounding:Grounding"]


def _lora_args(room: LoraRoom | None) -> list[str]:
    if room is None:
        return []
    # vLLM's own defaults are one slot and one copy: every switch would read the other adapter from disk.
    return [
        "--enable-lora",
        "--max-loras", str(room.slots),
        "--max-cpu-loras", str(room.copies),
        "--max-lora-rank", str(room.rank),
    ]  # fmt: skip


def _device_args(settings: EngineSettings) -> list[str]:
    extra = shlex.split(settings.extra_args)
    if settings.device == "gpu":
        return extra
    # Only whole blocks are reused between prompts: 32 is the least that CPU attention can do, 128 what it does by itself.
    # Eager, because compiling needs gcc and a minute, and for a small model gains nothing.
    return ["--dtype", "bfloat16", "--block-size", "32", "--enforce-eager", *extra]


def _environment(settings: EngineSettings, cores: Sequence[int], python_path: str | None) -> dict[str, str]:
    env = {
        # The tether and the plugin have to be found, by whichever interpreter.
        "PYTHONPATH": ":".join([str(_REPOSITORY), str(_PLUGIN_ENTRY), *([python_path] if python_path else [])]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        # As all our services send their traces; vLLM's default is gRPC.
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "agentflux-vllm",
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
            # Small functions of vLLM's are compiled at their first use even in eager mode, which takes a C++ compiler and ends
            # vLLM where there is none.
            "TORCHDYNAMO_DISABLE": "1",
        }
    return env


def _plugin_environment(settings: EngineSettings, room: LoraRoom | None) -> dict[str, str]:
    # vLLM loads the plugins that are named here, and no other.
    env = {"VLLM_PLUGINS": "agentflux"}
    if settings.adapter_store is None or room is None:
        return env
    return {
        **env,
        # Without it vLLM asks no resolver for a name that it does not know. What it opens, the middleware closes.
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "AGENTFLUX_ENGINE_PLUGIN_STORE": str(settings.adapter_store.absolute()),
        "AGENTFLUX_ENGINE_PLUGIN_MAX_RANK": str(room.rank),
        "AGENTFLUX_ENGINE_PLUGIN_ACTIVATED": "1" if settings.activated_lora else "0",
    }
