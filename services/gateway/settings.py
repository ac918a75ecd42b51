"""What an operator can set about the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.gateway.wire.requests import UnknownTools
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.calls import Ladder


class GatewaySettings(ServiceSettings):
    """Environment variables `AGENTFLUX_GATEWAY_…`."""

    # The Redis URL may hold a password, which a complaint about a wrong value would otherwise print.
    model_config = SettingsConfigDict(env_prefix="AGENTFLUX_GATEWAY_", env_nested_delimiter="__", hide_input_in_errors=True)

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
    """gRPC target of the sandbox runner; unix:/path for a socket."""

    sandbox_ca: Path | None = None
    """PEM file with the CAs that vouch for the sandbox; None does not encrypt. Read again when it changes."""

    sandbox_certificate: Path | None = None
    """PEM file with the gateway's own certificate for the sandbox, which takes its name as the tenant; None shows none."""

    sandbox_key: Path | None = None
    """PEM file with that certificate's key."""

    toolsets_dir: Path = Path("deploy/toolsets")
    """Folder of the registered toolsets, one `<name>/tools.json` each."""

    adapter_store: Path | None = None
    """Folder of the published adapters, the same for all services, to list them in /v1/models; None lists none."""

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

    strict_fields: bool = False
    """Whether a field that OpenAI's API does not have is refused with 400; otherwise it is ignored."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call this gateway, as `["https://chat.example"]`, or `["*"]`; none without."""

    redis_url: str | None = Field(default=None, pattern=r"^(redis|rediss|unix)://")
    """Redis or Valkey that keeps stored responses for all replicas: `redis://[user:password@]host:port/db`, `rediss://…` (TLS)
    or `unix:///path`. None keeps them in this process, 64 MiB at most, where no other replica finds them."""

    redis_timeout_s: float = Field(default=0.25, gt=0)
    """Seconds a request waits for Redis at most, connecting included; then its response is not stored."""

    response_ttl_s: int = Field(default=86_400, ge=1)
    """Seconds after its last use at which a stored response is forgotten."""

    response_max_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    """Largest response, with its own input, that is stored, in bytes; a larger one is served with `store: false`."""

    feedback_ttl_s: int = Field(default=86_400, ge=1)
    """Seconds after which a reply can no longer be judged (POST /v1/feedback); kept in Redis, or without it in this process."""

    decision_log: Path | None = None
    """Folder for the decision log: what users and models said, without the secrets that are found in it, for the trainer, and
    all feedback. None keeps no log."""

    decision_log_sample: float = Field(default=1.0, ge=0, le=1)
    """Share of the conversations that the decision log keeps, 0 to 1."""

    decision_log_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Size in bytes at which the decision log begins a new file."""

    decision_log_files: int = Field(default=16, ge=1)
    """Files that the decision log keeps in its folder, those of all replicas together, and as many of feedback."""

    upstreams_file: Path | None = None
    """YAML or JSON file of models elsewhere that may be asked, and of what may leave for them; None: nothing leaves."""

    unknown_tools: UnknownTools = "ignore"
    """What happens to tools that are no functions (`custom`, `namespace`, `web_search`, `mcp`), which some agents always send:
    `ignore` leaves them out, `refuse` answers 400."""

    keys_file: Path | None = None
    """API keys with what each may do and how much: a YAML or JSON list, made by `python -m services.gateway.keys new`. Read anew
    when it changes and at SIGHUP; a bad file leaves the old keys in force. None, and no `api_key`: everybody may do all."""

    api_key: SecretStr | None = None
    """One more key, named `default`, that may do everything; at least 20 characters. A change needs a restart."""

    api_key_file: Path | None = None
    """The same from the first line of a file, such as a mounted secret; read when `keys_file` would be."""

    limits_timeout_s: float = Field(default=0.05, gt=0, le=1)
    """Seconds a request waits at most for Redis (`redis_url`) to count it against its key's limits; then it passes uncounted.
    Without `redis_url` each gateway counts for itself."""

    reload_s: float = Field(default=2.0, gt=0)
    """Seconds between looks at `keys_file`, `api_key_file` and `toolsets_dir`, which are read anew when they change. All other
    settings need a restart."""

    max_turns: int = Field(default=512, ge=1)
    """Turns that run at a time; the next ones wait."""

    max_queue: int = Field(default=512, ge=0)
    """Turns that wait at a time; beyond it the least urgent one is refused with 503."""

    queue_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds a turn may wait; one that would wait longer, as turns take now, is refused at once."""

    max_requests: int = Field(default=2048, ge=1)
    """Requests inside at a time, bodies that still arrive included; the next ones are refused with 503 before they are read."""

    connect_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds until the selector or the argument service must have accepted a connection."""

    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row (no connection, 5xx, timeout) after which the selector, the argument service or the call cache is not
    asked for `breaker_wait_s`."""

    breaker_wait_s: float = Field(default=2.0, gt=0)
    """Seconds until one request may show whether a service that failed is well again."""

    ladder: Ladder = Ladder()
    """After how many identical calls with an identical result a loop is warned of, its tool withdrawn, and blocked."""

    same_failures: int = Field(default=2, ge=0)
    """After how many equal errors of a call, with nothing new in between, it is not made again in its turn; 0 turns it off."""
