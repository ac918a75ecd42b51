"""Decides what `make up` runs: which processes, with which command, environment and address. Starts nothing."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parents[2]
PORTS = {
    "gateway": 8030, "selector": 8031, "arguments": 8032, "callcache": 8033, "sandbox": 8034, "engine": 8010, "valkey": 8079,
    "sandbox-metrics": 8134, "sandbox-mcp": 8035,
}  # fmt: skip

# The model that comes with us was never trained on tools, and likes to make answers up; see trainer/LOG.md.
UNTRAINED_ANSWER_THRESHOLD = 0.9


class LocalSettings(BaseSettings):
    """Environment variables `AGENTFLUX_…` of the local launcher. The services read their own, `AGENTFLUX_<SERVICE>_…`, too."""

    model_config = SettingsConfigDict(
        env_prefix="AGENTFLUX_", extra="ignore", env_ignore_empty=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    run_dir: Path = REPOSITORY / ".run"
    """Folder of everything that is made at run time: logs, sockets, the base model, the workspace."""

    port_offset: int = Field(default=0, ge=0, le=50_000)
    """Added to every port, so that a second deployment fits on the machine."""

    model_dir: Path | None = None
    """Folder of the base model; None: SmolLM2-135M-Instruct, prepared from a package."""

    base_model: str = "smollm2-135m-instruct"
    """The name of the base model on the wire."""

    adapter_store: Path | None = None
    """Folder of the published adapters; None: one in the run folder, with the starter adapters to begin with."""

    workspace: Path | None = None
    """Folder that sandboxed tools may read and write; None: one in the run folder, with a few files to begin with."""

    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    """A Redis or Valkey to use; None starts one that forgets everything when it stops."""

    api_key: SecretStr | None = None
    """The key that `make up` and `make ask` send, where the gateway has keys."""

    ready_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds until every service has to be ready."""

    def port(self, name: str) -> int:
        """The port of a service on this machine."""
        return PORTS[name] + self.port_offset

    @property
    def model(self) -> Path:
        """The base model's folder."""
        return (self.model_dir or self.run_dir / "models" / "smollm2-135m-instruct").absolute()

    @property
    def store(self) -> Path:
        """The adapter store's folder."""
        return (self.adapter_store or self.run_dir / "adapters").absolute()

    @property
    def workspace_dir(self) -> Path:
        """The workspace's folder."""
        return (self.workspace or self.run_dir / "workspace").absolute()

    @property
    def engine_socket(self) -> Path:
        """Where vLLM listens. A unix socket's path has at most 107 bytes, and clones may lie deep."""
        socket = self.run_dir.absolute() / "sockets" / "engine.sock"
        if len(str(socket)) <= 100:
            return socket
        digest = hashlib.sha256(str(socket).encode()).hexdigest()[:12]
        return Path("/tmp") / f"agentflux-{digest}" / "engine.sock"


@dataclass(frozen=True)
class Process:
    """One process of the deployment. `port` is where it listens first of all."""

    name: str
    argv: list[str]
    port: int
    env: dict[str, str] = field(default_factory=dict)


def plan(settings: LocalSettings, *, valkey: Path | None) -> list[Process]:
    """The processes in the order of their start; `valkey` is the server's binary, None when a REDIS_URL is given."""
    processes = [_service(settings, name, env) for name, env in _environments(settings).items()]
    return [_valkey(settings, valkey), *processes] if valkey else processes


def _environments(settings: LocalSettings) -> dict[str, dict[str, str]]:
    engine = f"unix:{settings.engine_socket}"
    store = {"ADAPTER_STORE": str(settings.store)}
    model = {"ENGINE_URL": engine, "MODEL_DIR": str(settings.model), "BASE_MODEL": settings.base_model, **store}
    toolsets = str(REPOSITORY / "deploy" / "toolsets")
    redis = {"REDIS_URL": settings.redis_url or f"redis://127.0.0.1:{settings.port('valkey')}/0"}
    return {
        "engine": {"VLLM_URL": engine, "MODEL_DIR": str(settings.model), "SERVED_MODEL_NAME": settings.base_model, **store},
        "sandbox": {
            "TOOLSETS_DIR": toolsets,
            "WORKSPACE_DIR": str(settings.workspace_dir),
            "METRICS_PORT": str(settings.port("sandbox-metrics")),
            "MCP_PORT": str(settings.port("sandbox-mcp")),
            "TRAJECTORY_DIR": str(settings.run_dir.absolute() / "trajectories"),
            "FUNCTIONS_DIR": str(settings.run_dir.absolute() / "functions"),
            "SECRETS_DIR": str(settings.run_dir.absolute() / "secrets"),
        },
        "callcache": redis,
        "selector": {**model, "ANSWER_THRESHOLD": str(UNTRAINED_ANSWER_THRESHOLD)} if settings.model_dir is None else model,
        "arguments": model,
        "gateway": {
            **redis,
            **store,
            "ENGINE_URL": engine,
            "BASE_MODEL": settings.base_model,
            "TOOLSETS_DIR": toolsets,
            "SANDBOX_TARGET": f"127.0.0.1:{settings.port('sandbox')}",
            **{
                f"{name.upper()}_URL": f"http://127.0.0.1:{settings.port(name)}"
                for name in ("selector", "arguments", "callcache")
            },
        },
    }


def _service(settings: LocalSettings, name: str, env: dict[str, str]) -> Process:
    port = settings.port(name)
    prefixed = {f"AGENTFLUX_{name.upper()}_{key}": value for key, value in {**env, "PORT": str(port)}.items()}
    return Process(name, [sys.executable, "-m", f"services.{name}"], port, prefixed)


def _valkey(settings: LocalSettings, binary: Path) -> Process:
    # What is in it may be lost: it holds the calls and the stored responses of open conversations. So nothing is written to
    # disk, and it may not grow.
    options = {
        "--port": str(settings.port("valkey")), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no",
        "--maxmemory": "256mb", "--maxmemory-policy": "allkeys-lru", "--dir": str(settings.run_dir.absolute()),
    }  # fmt: skip
    return Process("valkey", [str(binary), *(part for option in options.items() for part in option)], settings.port("valkey"))
