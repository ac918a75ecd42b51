"""What an operator can set about the engine: the model, where vLLM listens, and how much of the machine it gets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from services.shared.chassis.settings import ServiceSettings


class EngineSettings(ServiceSettings):
    """Read from `AGENTFLUX_ENGINE_*`. `host` and `port` are the door for health and metrics, not for prompts."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_ENGINE_", protected_namespaces=())

    passed_on = ("AGENTFLUX_ENGINE_PLUGIN_",)

    port: int = Field(default=8010, ge=0, le=65535)
    """Port of the door (health, status, metrics)."""

    model_dir: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer.json and chat_template.jinja."""

    served_model_name: str = "smollm2-135m-instruct"
    """The name by which requests ask for the base model."""

    vllm_url: str = Field(default="unix:.run/sockets/engine.sock", pattern=r"^(unix:.+|http://[^:/]+:\d+)$")
    """Where vLLM listens: `unix:/path`, whose folder only this user may enter, or `http://host:port`. vLLM has routes that
    nobody should reach and no way to close them, so a port needs a network policy around it."""

    device: Literal["cpu", "gpu"] = "cpu"
    """What vLLM was built for; `cpu` adds the flags that its CPU backend needs."""

    python: Path = Path(sys.executable)
    """The interpreter whose `import vllm` is the one to run; another environment or an image's own may be named."""

    max_model_len: int = Field(default=8192, ge=512)
    """Longest prompt plus reply in tokens."""

    kv_cache_gib: int = Field(default=1, ge=1)
    """Memory for the key-value cache in GiB (cpu only; on a GPU vLLM takes what the weights leave)."""

    threads: int | None = Field(default=None, ge=1)
    """Compute threads (cpu only); None takes every core that this process may use."""

    max_queued_requests: int = Field(default=256, ge=1)
    """Prompts that vLLM takes at once, running or waiting; more are refused with 503, which our clients retry. A vote has up to
    64 at a time; a limit below that shuts large toolsets out."""

    adapter_store: Path | None = None
    """Folder of the published adapters, the same for all services; None serves the base model alone."""

    max_loras: int | None = Field(default=None, ge=1)
    """Adapters that fit into one batch; None: those of the busiest toolset and two more. More adapters than that take turns."""

    # An environment variable is text, which a choice of numbers would not take.
    max_lora_rank: (
        Annotated[
            Literal[8, 16, 32, 64, 128, 256, 320, 512],
            BeforeValidator(lambda given: int(given) if isinstance(given, str) and given.isdecimal() else given),
        ]
        | None
    ) = None
    """Highest rank an adapter may have, for which every slot sets memory aside; None: the highest that is published when vLLM
    starts, 32 before anything is."""

    activated_lora: bool = False
    """Serve adapters with activation tokens as activated LoRA, so that they share the prompt's cache with the base model.
    Patches vLLM inside, therefore off by default."""

    extra_args: str = ""
    """More flags for vLLM, written as on a command line, such as `--tensor-parallel-size 2`."""

    start_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds within which vLLM has to answer after it was started; then it is killed and started again."""
