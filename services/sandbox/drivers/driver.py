"""What a driver is: it starts a command isolated, or refuses, and it says what it really enforces on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.sandbox.limits import Limits


@dataclass(frozen=True)
class Mount:
    """A file or directory of the host, shown at the absolute path `target`; nobody inside may be able to replace `source`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SandboxSpec:
    """One command to isolate. A bare program name is looked up on the host.

    Inside, `workspace` of the host is /workspace, where the command runs; without one it runs in /tmp. `toolset` is /toolset,
    read-only. Each of `secrets` is a file /run/secrets/<name> that only the command's user can read; `secret_environment` is
    for servers that read nothing but their environment. `network` lists the "host:port" that may be reached, through the proxy
    in HTTPS_PROXY; empty means that there is no network at all.
    """

    command: tuple[str, ...]
    workspace: Path | None
    limits: Limits
    toolset: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    secret_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    network: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What a driver's self-probe found. With a `problem` nothing may be run; the problem ends in the next step."""

    driver: str
    enforced: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()
    problem: str = ""


class Process(Protocol):
    """A running sandbox with its three pipes."""

    @property
    def pid(self) -> int: ...

    @property
    def stdin(self) -> asyncio.StreamWriter: ...

    @property
    def stdout(self) -> asyncio.StreamReader: ...

    @property
    def stderr(self) -> asyncio.StreamReader: ...

    async def wait(self) -> int:
        """The exit status, once the whole process tree is gone."""
        ...

    def kill(self) -> None:
        """Ends the whole process tree, whatever it did to escape. Harmless when it is gone already."""
        ...


class Driver(Protocol):
    """Whoever can isolate a command."""

    async def probe(self) -> Capabilities:
        """Tries the isolation from the inside. Never raises for what an operator can repair; that is a problem."""
        ...

    def resolve(self, program: str) -> Path:
        """Where `program` is.

        Raises:
            ToolsetNotReady: it is not installed; says how to get it.
        """
        ...

    def refuses(self, spec: SandboxSpec) -> str | None:
        """Why this driver cannot do what `spec` asks: it names the field and the driver. None when it can do all of it."""
        ...

    async def start(self, spec: SandboxSpec) -> Process:
        """Starts `spec.command` isolated.

        Raises:
            SandboxUnusable: the last probe failed, or none was made: there is no way to run without isolation.
            ToolsetNotReady: the program is not installed, or the driver refuses the spec.
        """
        ...
