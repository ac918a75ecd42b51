"""toolset.yaml: which entries there are, what each may be, and what is said of a wrong one. TOOLSETS.md is its manual."""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from services.sandbox.limits import Limits

TOOLSET_FILE = "toolset.yaml"
MAX_FILE_BYTES = 256 * 1024

Scope = Literal["call", "session", "tenant", "shared"]

# Below these the sandbox has files of its own, and those who run in it may write to some.
_TAKEN = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/proc",
    "/dev",
    "/sys",
    "/run",
    "/tmp",
    "/toolset",
    "/workspace",
)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Read by programs before their first line of code: they would decide what runs.
_FORBIDDEN_VARIABLES = re.compile(r"LD_\w+|GCONV_PATH|BASH_ENV|ENV")


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name) or _FORBIDDEN_VARIABLES.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a variable here: letters, digits and _, not beginning with a digit, and none of LD_*"
        )
    return name


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _file_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be a file's bare name: 1 to 128 of A-Z a-z 0-9 _ . -, without directories")
    return name


def _relative(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path:
        raise ValueError(f"{path!r} must be a path inside the toolset's directory, without ..")
    return path


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} must be host:port, such as api.example.com:443, in lower case and without wildcards")
    if _is_address(host):
        raise ValueError(f"{text!r} must name a host, not an address: the proxy resolves names and refuses private addresses")
    return text


def _is_address(host: str) -> bool:
    # `127.1` and `2130706433` are addresses, too, for those who resolve them.
    try:
        ip_address(host)
    except ValueError:
        return host.rpartition(".")[2].isdigit()
    return True


def _source(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or path.rstrip("/") == "":
        raise ValueError(f"{path!r} must be an absolute path of the host below /, without ..")
    return path


def _target(path: str) -> str:
    clean = str(PurePosixPath(path))
    if not path.startswith("/") or clean != path or ".." in path.split("/") or path == "/":
        raise ValueError(f"{path!r} must be an absolute path below /, without .. and without a / at its end")
    if taken := [top for top in _TAKEN if path == top or path.startswith(f"{top}/")]:
        raise ValueError(f"{path!r} is below {taken[0]}, which the sandbox makes itself; take another, such as /data")
    return path


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.fragment:
        raise ValueError(f"{text!r} must be http(s)://host[:port]/path, without user name, password and fragment")
    return text


def _header(name: str) -> str:
    own = ("accept", "accept-encoding", "connection", "content-", "host", "mcp-", "last-event-id", "te", "transfer-encoding")
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or name.lower().startswith(own):
        raise ValueError(f"{name!r} must be a header such as Authorization, and none that MCP or HTTP itself uses")
    return name


def _limits(entries: dict[str, Any]) -> dict[str, float]:
    known = {item.name: item.type for item in fields(Limits)}
    if unknown := sorted(map(str, entries.keys() - known.keys())):
        raise ValueError(f"unknown entries {unknown}; known are {sorted(known)}")
    for name, value in entries.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e15:
            raise ValueError(f"{name} must be a number above 0, not {value!r:.80}")
        if known[name] == "int" and not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
    return entries


Text = Annotated[str, AfterValidator(_no_nul)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PackageEntry(_Entry):
    """What the server was installed from."""

    registry: Literal["npm", "pypi"]
    name: Annotated[str, Field(min_length=1, max_length=214)]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.+!_-]{0,63}$")]


class MountEntry(_Entry):
    """A file or directory of the host."""

    source: Annotated[str, AfterValidator(_no_nul), AfterValidator(_source)]
    target: Annotated[str, AfterValidator(_no_nul), AfterValidator(_target)]
    writable: bool = False


class SecretEntry(_Entry):
    """A file of AGENTFLUX_SANDBOX_SECRETS_DIR that the server gets."""

    name: str
    file: Annotated[str, AfterValidator(_file_name)]
    given_as: Literal["environment", "file", "header"] = Field(alias="as")

    @model_validator(mode="after")
    def _name_fits(self) -> SecretEntry:
        {"environment": _variable, "file": _file_name, "header": _header}[self.given_as](self.name)
        return self


class ToolsetFile(_Entry):
    """The entries of toolset.yaml."""

    command: list[Annotated[str, BeforeValidator(_as_text), AfterValidator(_no_nul)]] = []
    url: Annotated[str, AfterValidator(_url)] = ""
    description: Annotated[Text, Field(max_length=4096)] = ""
    package: PackageEntry | None = None
    environment: dict[
        Annotated[str, AfterValidator(_variable)], Annotated[str, BeforeValidator(_as_text), AfterValidator(_no_nul)]
    ] = {}
    requires: list[Annotated[str, AfterValidator(_no_nul), AfterValidator(_relative)]] = []
    setup: Text = ""
    mounts: list[MountEntry] = []
    network: list[Annotated[str, AfterValidator(_endpoint)]] = []
    limits: Annotated[dict[str, Any], AfterValidator(_limits)] = {}
    secrets: list[SecretEntry] = []
    scope: Scope = "session"
    read_only_tools: list[str] = []
    workspace: bool = True
    warm: Annotated[int, Field(ge=0, le=64)] = 0
    legacy: bool = False

    @model_validator(mode="after")
    def _fit_together(self) -> ToolsetFile:
        given = self.model_fields_set
        if not given & {"command", "url"}:
            raise ValueError("lacks 'command' (how its server is started) or 'url' (where it runs)")
        own_process = {"command", "environment", "requires", "mounts", "network", "workspace", "package"}
        if "url" in given and (extra := sorted(given & own_process)):
            raise ValueError(f"url: a server that runs elsewhere cannot have {', '.join(extra)}; leave out one or the other")
        ways = {"header"} if "url" in given else {"environment", "file"}
        if strange := [secret.name for secret in self.secrets if secret.given_as not in ways]:
            raise ValueError(f"secrets: {', '.join(strange)} must be given as {' or '.join(sorted(ways))} to this server")
        _unique("secrets", [secret.name for secret in self.secrets] + list(self.environment))
        _unique("mounts", [mount.target for mount in self.mounts])
        if (
            self.scope == "shared"
            and self.command
            and (self.workspace or self.network or any(mount.writable for mount in self.mounts))
        ):
            raise ValueError(
                "scope: a server can be shared by all tenants only with `workspace: false`, no network, and no writable mount"
            )
        return self


def read_toolset_file(path: Path) -> ToolsetFile:
    """The entries in `path`.

    Raises:
        OSError: it cannot be read.
        ValueError: names every entry that cannot be used, its value, and what is possible.
    """
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"it has {size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {str(error) or type(error).__name__}") from None
    if not isinstance(entries, dict):
        raise ValueError("it must be a mapping of entries, such as `command: [node, /toolset/server.js]`")
    try:
        return ToolsetFile.model_validate(entries)
    except ValidationError as error:
        raise ValueError("; ".join(_said(found) for found in error.errors(include_url=False)[:8])) from None


def _unique(entry: str, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{entry}: {', '.join(twice)} is given more than once")


def _said(found: Any) -> str:
    """One of pydantic's findings in our words."""
    place = ".".join(str(part) for part in found["loc"])
    value = f"{found['input']!r:.80}"
    match found["type"]:
        case "extra_forbidden":
            return f"unknown entries [{place}]; known are {_known(found['loc'])}"
        case "missing":
            return f"lacks {place!r}"
        case "value_error":
            said = str(found["ctx"]["error"])
            return f"{place}: {said}" if place else said
        case "list_type":
            return f"{place} must be a list, not {value}" + (": a program and its arguments" if place == "command" else "")
        case _:
            return f"{place}: {found['msg'].replace('Input should be', 'must be')}, not {value}"


def _known(place: tuple[int | str, ...]) -> list[str]:
    inner: dict[Any, type[_Entry]] = {"package": PackageEntry, "mounts": MountEntry, "secrets": SecretEntry}
    model = inner.get(place[0], ToolsetFile) if len(place) > 1 else ToolsetFile
    return sorted(field.alias or name for name, field in model.model_fields.items())
