"""What an operator can set about the argument service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.grounding import GROUNDING


class ArgumentsSettings(ServiceSettings):
    """Environment variables `AGENTFLUX_ARGUMENTS_…`."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_ARGUMENTS_", protected_namespaces=())

    port: int = Field(default=8032, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    engine_url: str = "http://127.0.0.1:8000"
    """Where vLLM answers: `http://host:port`, or `unix:/path` for one on this machine; several are separated by commas, and
    every service must spell them alike, so that a conversation stays with one of them."""

    engine_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds the engine may take for one try before it fails with deadline_exceeded."""

    model_dir: Path = Path("models/base")
    """Folder with tokenizer.json, tokenizer_config.json and chat_template.jinja of the base model."""

    adapter_store: Path | None = None
    """Folder of the published adapters, the same for all services; None serves every toolset with the base model."""

    base_model: str = "base"
    """The name under which the engine serves the base model."""

    max_tokens: int = Field(default=512, ge=1)
    """Longest arguments, in tokens, where the client sets no limit of its own."""

    grounding: float = Field(default=GROUNDING, ge=0, allow_inf_nan=False)
    """What a token loses that turns a word of the conversation into another one halfway, in nats: 4 means that it must be 55
    times as likely as one that does not. 0 writes whatever is likeliest."""
