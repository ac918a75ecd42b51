"""What an operator can set about the selector."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.selection import Strategy


class SelectorSettings(ServiceSettings):
    """Environment variables `AGENTFLUX_SELECTOR_…`."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_SELECTOR_", protected_namespaces=())

    port: int = Field(default=8031, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    engine_url: str = "http://127.0.0.1:8000"
    """Where vLLM answers: `http://host:port`, or `unix:/path` for one on this machine; several are separated by commas, and
    every service must spell them alike, so that a conversation stays with one of them."""

    engine_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds the engine may be silent before a vote fails with deadline_exceeded."""

    model_dir: Path = Path("models/base")
    """Folder with tokenizer.json, tokenizer_config.json and chat_template.jinja of the base model."""

    adapter_store: Path | None = None
    """Folder of the published adapters, the same for all services; None serves every toolset with the base model."""

    base_model: str = "base"
    """The name under which the engine serves the base model."""

    strategy: Strategy = "exact"
    """How a tool is chosen when the request does not say: `exact` scores all names, `sample` draws and counts."""

    answer_threshold: float = Field(default=0.0, ge=0, le=1)
    """Least probability with which an answer in text wins while the turn has no tool result yet; below it the likeliest tool
    is called. 0 lets the likeliest label win, which is right for trained adapters and for models that know tool calling."""

    samples: int = Field(default=10, ge=1, le=128)
    """Samples of one `sample` vote, drawn at temperature 1."""

    shadow_adapter: str | None = None
    """A published selector adapter that votes on some requests beside the one that serves, unheard: how often both agree is a
    metric (`agentflux_shadow_votes_total`). None lets nobody vote so."""

    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """Share of its toolset's votes that the shadow adapter repeats, behind everything else that the engine does."""

    first_wave: int = Field(default=6, ge=1)
    """How many of them are drawn at once; the rest follows only while it could change the winner."""
