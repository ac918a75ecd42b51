"""What an operator can set about the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.calls import Ladder


class GatewaySettings(ServiceSettings):
    """Environment variables `AGENTFLUX_GATEWAY_…`."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_GATEWAY_", env_nested_delimiter="__")

    port: int = Field(default=8030, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    engine_url: str = "http://127.0.0.1:8000"
    """Where vLLM answers: `http://host:port`, or `unix:/path` for one on this machine; several are separated by commas, and
    every service must spell them alike, so that a conversation stays with one of them."""

    selector_url: str = "http://127.0.0.1:8031"
    """Where the selector answers."""

    arguments_url: str = "http://127.0.0.1:8032"
    """Where the argument service answers."""

    callcache_url: str = "http://127.0.0.1:8033"
    """Where the call cache answers."""

    sandbox_target: str = "127.0.0.1:8034"
    """gRPC target of the sandbox runner."""

    toolsets_dir: Path = Path("deploy/toolsets")
    """Folder of the registered toolsets, one `<name>/tools.json` each."""

    base_model: str = "base"
    """The name under which the engine serves the base model; clients see it in /v1/models."""

    answer_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds the base model may be silent while it answers."""

    stage_timeout_s: float = Field(default=180.0, gt=0)
    """Seconds the selector and the argument service may take, each."""

    request_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds a whole request may take, from its first byte to the last byte of the reply."""

    callcache_timeout_s: float = Field(default=0.5, gt=0)
    """Seconds the call cache may take before the request goes on without it."""

    keepalive_s: float = Field(default=10.0, gt=0)
    """Seconds of silence after which a streamed reply sends a comment, so that proxies and clients keep it open."""

    look_ahead: int = Field(default=0, ge=0, le=8)
    """Argument adapters that may read the conversation while a tool runs, because they are likely to be next. Pays where prompts
    are long and tools are slow, and only for plain LoRA; 0 prepares none."""

    ladder: Ladder = Ladder()
    """After how many identical calls with an identical result a loop is warned of, its tool withdrawn, and blocked."""
