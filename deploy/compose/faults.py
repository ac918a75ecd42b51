"""Kills one container of a project and measures until turns succeed again; and asks who can reach whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.compose.docker import DockerError, Project

RECOVERY_TIMEOUT_S = 600.0

# From a service to an address: can it connect? The first rows must be true, or the false ones would prove nothing.
REACH = (
    ("gateway", "engine", 8000, True),
    ("gateway", "sandbox", 8034, True),
    ("callcache", "valkey", 6379, True),
    ("selector", "engine", 8000, True),
    ("selector", "valkey", 6379, False),
    ("arguments", "valkey", 6379, False),
    ("arguments", "sandbox", 8034, False),
    ("callcache", "engine", 8000, False),
    ("sandbox", "engine", 8000, False),
    ("sandbox", "valkey", 6379, False),
    ("sandbox", "selector", 8031, False),
)
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"
# Who may speak to the world; everybody else is on internal networks only.
OUTWARD = {"gateway"}


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill until the service was ready and a turn succeeded, and how many turns failed in between."""

    seconds: float
    failed_turns: int


def kill(project: Project, service: str, turn: Callable[[], object]) -> Recovery:
    """Kills every process of a service's container, then takes turns until all is well.

    Raises:
        DockerError: it did not recover in time.
    """
    container = project.containers()[service]
    before = _started_at(project, container)
    started, failed = time.monotonic(), 0
    # From inside, so that it is a crash to Docker: it starts again only what it did not stop itself.
    _succeeds(project, container, "sh", "-c", "kill -9 -1")
    while time.monotonic() - started < RECOVERY_TIMEOUT_S:
        worked = _try(turn)
        failed += not worked
        if worked and _started_at(project, container) != before and healthy(project, container):
            return Recovery(time.monotonic() - started, failed)
        time.sleep(0.25)
    raise DockerError(f"{service} did not recover within {RECOVERY_TIMEOUT_S:g} s of being killed")


def healthy(project: Project, container: str) -> bool:
    """Whether the container's own health check passes now."""
    described = project.docker.inspect(container) or {}
    test = (described.get("Config", {}).get("Healthcheck") or {}).get("Test", [])
    return test[:1] == ["CMD"] and _succeeds(project, container, *test[1:])


def unexpected_reach(project: Project) -> list[str]:
    """What can be reached and should not, or cannot and should; empty when the networks are as drawn."""
    containers = project.containers()
    found = []
    for service, host, port, expected in REACH:
        if _succeeds(project, containers[service], "python", "-c", _CONNECT, host, str(port)) != expected:
            found.append(f"{service} {'cannot' if expected else 'can'} reach {host}:{port}")
    found += [
        f"{service} is on {network}, which is not internal"
        for service in containers.keys() - OUTWARD
        for network in _outward_networks(project, containers[service])
    ]
    return found


def _outward_networks(project: Project, container: str) -> list[str]:
    networks = (project.docker.inspect(container) or {}).get("NetworkSettings", {}).get("Networks", {})
    described = {name: project.docker.inspect(name) or {} for name in networks if name != "none"}
    return [name for name, network in described.items() if not network.get("Internal")]


def _try(turn: Callable[[], object]) -> bool:
    try:
        turn()
    except Exception:
        # Whatever it was, it counts as a turn that failed.
        return False
    return True


def _started_at(project: Project, container: str) -> str:
    state = (project.docker.inspect(container) or {}).get("State", {})
    return str(state.get("StartedAt")) if state.get("Running") else "not running"


def _succeeds(project: Project, container: str, *command: str) -> bool:
    try:
        project.docker.run("exec", container, *command, timeout_s=30)
    except DockerError:
        return False
    return True
