"""What any driver makes of a spec: the places that belong to it, the environment, and what no driver can do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.egress import destination

PROXY_PORT = 3128
EGRESS = "/run/egress"
RELAY = "/run/relay.py"
RELAY_SCRIPT = Path(__file__).with_name("relay.py")

# Upper and lower case, since programs differ in which they read; Node.js from 22.21 and 24 on reads them when it is told to.
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_PROXY_ENVIRONMENT = {
    **{name: _PROXY for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")},
    **{name: "localhost,127.0.0.1" for name in ("NO_PROXY", "no_proxy")},
    "NODE_USE_ENV_PROXY": "1",
}

# A mount there would hide what the sandbox itself shows, or stand where the tool could put a link in its way.
_TAKEN = {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp", "toolset", "usr", "workspace"}
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def working_directory(spec: SandboxSpec) -> str:
    """Where the command runs, inside."""
    return "/workspace" if spec.workspace is not None else "/tmp"


def environment(spec: SandboxSpec) -> dict[str, str]:
    """All variables that the command sees; the proxy's cannot be set otherwise."""
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **spec.environment, **spec.secret_environment}
    return variables | (_PROXY_ENVIRONMENT if spec.network else {})


def relayed(spec: SandboxSpec, command: list[str], python: Path | None) -> list[str]:
    """`command`, behind the relay to the proxy where the spec has a network."""
    if not spec.network or python is None:
        return command
    return [str(python), "-I", "-S", RELAY, str(PROXY_PORT), f"{EGRESS}/proxy", *command]


def impossible(spec: SandboxSpec) -> str | None:
    """The first field that no driver could carry out, and why; None when there is none."""
    for mount in spec.mounts:
        if problem := _bad_mount(mount.source, mount.target, spec.workspace):
            return f"mounts: {problem}"
    for name in spec.secrets:
        if not _SECRET.fullmatch(name):
            return f"secrets: {name!r} is no file name: use letters, digits, '_', '-' and '.'"
    for entry in spec.network:
        try:
            destination(entry)
        except ValueError as error:
            return f"network: {error}"
    return _bad_environment("environment", spec.environment) or _bad_environment("secret_environment", spec.secret_environment)


def refusal(driver: str, spec: SandboxSpec, relay_python: Path | None) -> str | None:
    """What a driver that can do everything still refuses: what makes no sense, and a network without its relay's Python."""
    if problem := impossible(spec):
        return f"the driver {driver} cannot do what the toolset asks; {problem}"
    if spec.network and relay_python is None:
        return f"the driver {driver} cannot enforce network here: its relay needs a python3 below /usr, and there is none"
    return None


def _bad_environment(field: str, variables: Mapping[str, str]) -> str | None:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            return f"{field}: {name!r} cannot be an environment variable: it is empty, or has '=' or a zero byte"
    return None


def _bad_mount(source: Path, target: str, workspace: Path | None) -> str | None:
    path = Path(target)
    parts = path.parts
    if not path.is_absolute() or ".." in parts or len(parts) < 2 or str(path) != target:
        return f"{target!r} is no place inside: write an absolute path without '..', such as /data"
    if parts[1] in _TAKEN:
        return f"{target!r} is below /{parts[1]}, which the sandbox itself fills: choose another place, such as /data"
    if not source.exists():
        return f"{source} does not exist"
    resolved = source.resolve()
    if workspace is not None and resolved.is_relative_to(workspace.resolve()):
        return f"{source} is in the workspace, where tools could put anything in its place"
    return None
