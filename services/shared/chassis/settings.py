"""What every service lets its operator set. Each service extends this with one class of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Read from the environment; the prefix is the service's, such as `AGENTFLUX_GATEWAY_`. An unknown value is an error."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: whoever wants to be reached says so."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe records that are written."""

    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP) that receives traces; None keeps spans in the process."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest request body in bytes; a larger one is refused with 413."""

    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a client has to send its request body."""

    drain_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight may take after SIGTERM before they are cut."""
