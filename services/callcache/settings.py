"""What an operator can set about the call cache."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.calls import Ladder


class CallCacheSettings(ServiceSettings):
    """Environment variables `AGENTFLUX_CALLCACHE_…`."""

    # The Redis URL may hold a password, which a complaint about a wrong value would otherwise print.
    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_CALLCACHE_", env_nested_delimiter="__", hide_input_in_errors=True)

    port: int = Field(default=8033, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    redis_url: str = Field(default="redis://127.0.0.1:8079/0", pattern=r"^(redis|rediss|unix)://")
    """Redis or Valkey, shared by all replicas: `redis://[user:password@]host:port/db`, `rediss://…` (TLS) or `unix:///path`."""

    redis_timeout_s: float = Field(default=0.25, gt=0)
    """Seconds a request waits for Redis at most, connecting included; then its calls are counted from the request alone."""

    ttl_s: int = Field(default=3600, ge=1)
    """Seconds after its last look back at which a conversation is forgotten, if no answer cleared it before."""

    max_calls_per_conversation: int = Field(default=1024, ge=1)
    """Calls remembered per conversation; beyond it, those which the latest request no longer shows are dropped first."""

    ladder: Ladder = Ladder()
    """How many identical calls with an identical result warn, withdraw the tool and block; 0 turns a step off."""
