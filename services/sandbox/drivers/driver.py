"""What a driver is: it starts a command isolated, or refuses, and it says what it really enforces on this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.sandbox.limits import Limits


@dataclass(frozen=True)
class SandboxSpec:
    """One command to isolate.

    `command` is run in /workspace, which is `workspace` on the host and the only place outside of temporary files
    that can be written. `toolset` is at /toolset, read-only. A bare program name is looked up on the host.
    """

    command: tuple[str, ...]
    workspace: Path
    limits: Limits
    toolset: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


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

    async def start(self, spec: SandboxSpec) -> Process:
        """Starts `spec.command` isolated.

        Raises:
            SandboxUnusable: the last probe failed, or none was made: there is no way to run without isolation.
            ToolsetNotReady: the program is not installed.
        """
        ...
