"""What a toolset is: the directory deploy/toolsets/<name> with toolset.yaml, its pinned tools, and its MCP server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import structlog

from services.sandbox.arguments import ArgumentChecker, ResultChecker
from services.sandbox.drivers.driver import Mount, SandboxSpec
from services.sandbox.errors import SandboxError, ToolsDiffer, ToolsetNotReady, UnknownTool, UnknownToolset
from services.sandbox.limits import Limits, tightened
from services.sandbox.pinning import (
    LOCK_FILE,
    TOOLS_FILE,
    Package,
    PinnedTool,
    differences,
    locked_package,
    named,
    read_lock,
    read_tools,
)
from services.sandbox.suspicious import lookalikes, suspicious
from services.sandbox.toolset_file import TOOLSET_FILE, Scope, ToolsetFile, read_toolset_file
from services.shared.contracts.adapters import TOOLSET_NAME
from services.shared.contracts.tools import Tool, tools_digest

MAX_SECRET_BYTES = 64 * 1024

log = structlog.get_logger()


@dataclass(frozen=True)
class Secret:
    """What a server gets as a variable, the file /run/secrets/<name>, or an HTTP header; `path` is None without a directory."""

    name: str
    file: str
    given_as: Literal["environment", "file", "header"]
    path: Path | None = None

    def problem(self) -> str:
        """Why it cannot be handed over; empty when it can."""
        if self.path is None:
            return (
                f"the secret {self.name} cannot be read: set AGENTFLUX_SANDBOX_SECRETS_DIR to a directory with a file {self.file}"
            )
        try:
            self.read()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return f"the secret {self.name} cannot be read: {self.path}: {why}; put the value there, readable to the service"
        return ""

    def read(self) -> bytes:
        """The file's contents without the line end.

        Raises:
            OSError, ValueError: it cannot be read, or is no value that can be handed over.
        """
        if self.path is None:
            raise ValueError("AGENTFLUX_SANDBOX_SECRETS_DIR is not set")
        if not self.path.is_file():
            raise ValueError("there is no such file")
        with self.path.open("rb") as file:
            value = file.read(MAX_SECRET_BYTES + 1).rstrip(b"\r\n")
        if not value or len(value) > MAX_SECRET_BYTES:
            raise ValueError(f"it must have 1 to {MAX_SECRET_BYTES} bytes")
        if self.given_as == "header" and not all(32 <= byte < 127 for byte in value):
            raise ValueError("a header's value must be printable ASCII")
        if self.given_as == "environment" and (b"\0" in value or not _is_utf8(value)):
            raise ValueError("a variable's value must be UTF-8 without NUL bytes")
        return value


@dataclass(frozen=True)
class Toolset:
    """One MCP server and the tools it is pinned to; services/sandbox/TOOLSETS.md says what each entry means.

    `command` is what runs inside the sandbox, where the directory is at /toolset and the files at /workspace; empty where the
    server is at `url`, or where nobody wrote yet how it is started. `requires` are the files that `setup` puts there; `warm` is
    how many servers wait, started, for calls to come. A `legacy` server is greeted with initialize only, as before 2026-07-28.
    """

    name: str
    directory: Path
    command: tuple[str, ...] = ()
    url: str = ""
    description: str = ""
    package: Package | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    setup: str = ""
    mounts: tuple[Mount, ...] = ()
    network: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    secrets: tuple[Secret, ...] = ()
    scope: Scope = "session"
    read_only_tools: frozenset[str] = frozenset()
    workspace: bool = True
    pinned: tuple[PinnedTool, ...] = ()
    version: str = ""
    """SHA-256 of all its files and of the operator's limits; servers of another version get no new calls."""
    warm: int = 0
    legacy: bool = False
    checkers: Mapping[str, ArgumentChecker] = field(default_factory=dict, compare=False, repr=False)
    result_checkers: Mapping[str, ResultChecker] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """As models see them."""
        return tuple(pinned.tool for pinned in self.pinned)

    @cached_property
    def digest(self) -> str:
        """What adapters are bound to, as `contracts.tools.tools_digest` counts it."""
        return tools_digest(list(self.tools))

    def checker(self, tool: str) -> ArgumentChecker:
        """The argument checker of `tool`.

        Raises:
            UnknownTool: names the tools that there are.
        """
        if tool not in self.checkers:
            known = ", ".join(sorted(self.checkers)) or "none"
            raise UnknownTool(f"toolset {self.name!r} has no tool {tool[:130]!r}; it has: {known}")
        return self.checkers[tool]

    def drift(self, live: list[PinnedTool]) -> ToolsDiffer | None:
        """The error where a server lists anything else than is pinned, with old and new digests."""
        found = differences(self.pinned, live)
        if not found:
            return None
        return ToolsDiffer(
            f"the server of toolset {self.name!r} lists other tools than {LOCK_FILE} pins: {named(found)}. Review the change "
            f"with: python -m services.sandbox.pin {self.name}; with --approve it is pinned"
        )

    def not_ready(self) -> str:
        """Why its server cannot be started, with the next step; empty when it can. Its tools are known all the same."""
        who = f"toolset {self.name!r}"
        if not self.command and not self.url:
            return f"{who} has no command: write into {self.directory / TOOLSET_FILE} how its MCP server is started"
        for name in self.requires:
            if not (self.directory / name).exists():
                return f"{who} lacks {name} in {self.directory}: {self.setup or 'install what its server needs'}"
        for mount in self.mounts:
            if not mount.source.exists():
                return f"{who} mounts {mount.source}, which does not exist: create it, or change mounts in {TOOLSET_FILE}"
        for secret in self.secrets:
            if problem := secret.problem():
                return f"{who}: {problem}"
        return ""

    def spec(self, workspace: Path) -> SandboxSpec:
        """How its server is started, the secrets read now; `workspace` are the files it may work on, if it works on any.

        Raises:
            ToolsetNotReady: a secret cannot be read.
        """
        return SandboxSpec(
            command=self.command,
            workspace=workspace if self.workspace else None,
            limits=self.limits,
            toolset=self.directory,
            environment=self.environment,
            secrets=self.secret_files(),
            secret_environment=self.secret_environment(),
            mounts=self.mounts,
            network=self.network,
        )

    def secret_files(self) -> dict[str, bytes]:
        """What belongs at /run/secrets/<name>, read now.

        Raises:
            ToolsetNotReady: one cannot be read.
        """
        return self._secret_values("file")

    def secret_environment(self) -> dict[str, str]:
        """The variables that are secret, read now.

        Raises:
            ToolsetNotReady: one cannot be read.
        """
        return {name: value.decode() for name, value in self._secret_values("environment").items()}

    def secret_headers(self) -> dict[str, str]:
        """The headers that are secret, for a server at `url`, read now.

        Raises:
            ToolsetNotReady: one cannot be read.
        """
        return {name: value.decode("ascii") for name, value in self._secret_values("header").items()}

    def secret_values(self) -> list[bytes]:
        """Every value that must not show up in a log or an error; those that cannot be read are left out."""
        values = []
        for secret in self.secrets:
            try:
                values.append(secret.read())
            except (OSError, ValueError):
                continue
        return values

    def scrubbed(self, text: str) -> str:
        """`text` without the values of its secrets."""
        for value in self.secret_values():
            text = text.replace(value.decode("utf-8", "replace"), "[secret]")
        return text

    def _secret_values(self, given_as: str) -> dict[str, bytes]:
        try:
            return {secret.name: secret.read() for secret in self.secrets if secret.given_as == given_as}
        except (OSError, ValueError):
            raise ToolsetNotReady(self.not_ready() or f"a secret of toolset {self.name!r} changes just now") from None


class Toolsets:
    """The toolsets below one directory. A changed file is read again at the next look; a broken one is an error then."""

    def __init__(self, directory: Path, ceiling: Limits, secrets_dir: Path | None = None) -> None:
        self._directory = directory
        self._ceiling = ceiling
        self._secrets_dir = secrets_dir
        # Its files, what they looked like when it was read, and what was read.
        self._read: dict[str, tuple[list[str], tuple[tuple[int, int], ...], Toolset]] = {}

    def names(self) -> list[str]:
        """Every directory that has a toolset.yaml, in order."""
        return sorted(path.parent.name for path in self._directory.glob(f"*/{TOOLSET_FILE}"))

    def get(self, name: str, *, pinned: bool = True) -> Toolset:
        """One toolset; without `pinned` it may lack its tools.json, and its lock is not looked at.

        Raises:
            UnknownToolset: names the toolsets that there are.
            ToolsetNotReady: its files cannot be used, or were never approved.
        """
        if pinned and (known := self._read.get(name)) and tuple(map(_stamp, known[0])) == known[1]:
            return known[2]
        directory = self._directory / name
        # The name came over the wire: only one that cannot lead elsewhere becomes a path.
        if not TOOLSET_NAME.fullmatch(name) or not (directory / TOOLSET_FILE).is_file():
            self._refuse(name)
        if not pinned:
            return read_toolset(directory, self._ceiling, self._secrets_dir, pinned=False)
        files = _files(directory)
        stamp = tuple(map(_stamp, files))
        toolset = read_toolset(directory, self._ceiling, self._secrets_dir)
        self._read[name] = (files, stamp, toolset)
        self._report(toolset)
        return toolset

    def _refuse(self, name: str) -> None:
        names = self.names()
        if name in names:
            raise ToolsetNotReady(
                f"the directory {self._directory / name} cannot be a toolset: its name must be 1 to 64 of a-z 0-9 _ -, "
                "beginning and ending with a letter or digit; rename it"
            )
        known = ", ".join(names) or f"none below {self._directory}"
        raise UnknownToolset(f"there is no toolset {name[:130]!r}; registered are: {known}")

    def _report(self, toolset: Toolset) -> None:
        """Into the log, for whoever looks after the service: what a person should have seen before approving."""
        others = {name: [tool.name for tool in read.tools] for name, (_, _, read) in self._read.items()}
        flags = [f"{pinned.tool.name}: {flag}" for pinned in toolset.pinned for flag in suspicious(pinned)]
        flags += [flag for flag in lookalikes(others) if toolset.name in flag]
        if flags:
            log.warning("suspicious tools", toolset=toolset.name, flags=flags[:20], total=len(flags))


def read_toolset(directory: Path, ceiling: Limits, secrets_dir: Path | None = None, *, pinned: bool = True) -> Toolset:
    """The toolset in `directory`, its limits below `ceiling`; without `pinned` its tools are left out.

    Raises:
        ToolsetNotReady: says which file and which entry cannot be used.
    """
    path = directory / TOOLSET_FILE
    name = directory.name
    try:
        entries = read_toolset_file(path)
        version = hashlib.sha256(b"\0".join([*map(_bytes, _files(directory)), repr(ceiling).encode()])).hexdigest()
        package = locked_package(directory, **entries.package.model_dump()) if entries.package else None
        path = directory / TOOLS_FILE
        tools = read_tools(directory) if pinned else []
        if pinned and not tools:
            raise ToolsetNotReady(
                f"toolset {name!r} has no {TOOLS_FILE}; write it with: python -m services.sandbox.pin {name} --approve"
            )
        path = directory / LOCK_FILE
        locked = read_lock(directory, tools, package) if pinned else ()
        path = directory / TOOLSET_FILE
        if pinned and (unknown := sorted(set(entries.read_only_tools) - {tool.name for tool in tools})):
            raise ValueError(
                f"read_only_tools: {', '.join(unknown)} not in {TOOLS_FILE}; it has {', '.join(tool.name for tool in tools)}"
            )
    except SandboxError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        advice = f"; compare and pin with: python -m services.sandbox.pin {name}" if path.name == LOCK_FILE else ""
        raise ToolsetNotReady(f"{path} cannot be used: {why}{advice}") from None
    return _toolset(directory, entries, ceiling, secrets_dir, package, locked, version)


def _toolset(
    directory: Path,
    entries: ToolsetFile,
    ceiling: Limits,
    secrets_dir: Path | None,
    package: Package | None,
    pinned: tuple[PinnedTool, ...],
    version: str,
) -> Toolset:
    name = directory.name
    return Toolset(
        name=name,
        directory=directory.resolve(),
        command=tuple(entries.command),
        url=entries.url,
        description=entries.description,
        package=package,
        environment=entries.environment,
        requires=tuple(entries.requires),
        setup=entries.setup,
        mounts=tuple(Mount(Path(mount.source), mount.target, mount.writable) for mount in entries.mounts),
        network=tuple(entries.network),
        limits=tightened(Limits(**entries.limits), ceiling),
        secrets=tuple(
            Secret(secret.name, secret.file, secret.given_as, secrets_dir / secret.file if secrets_dir else None)
            for secret in entries.secrets
        ),
        scope=entries.scope,
        read_only_tools=frozenset(entries.read_only_tools),
        workspace=entries.workspace,
        warm=entries.warm,
        legacy=entries.legacy,
        pinned=pinned,
        version=version,
        checkers={each.tool.name: ArgumentChecker(name, each.tool) for each in pinned},
        result_checkers={
            each.tool.name: ResultChecker(name, each.tool.name, each.output_schema)
            for each in pinned
            if each.output_schema is not None
        },
    )


@lru_cache
def _files(directory: Path) -> list[str]:
    # As text, because every call looks at all of them, and a `Path` would take most of that time.
    return [str(directory / name) for name in (TOOLSET_FILE, TOOLS_FILE, LOCK_FILE, "package-lock.json", "requirements.txt")]


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes() if os.path.isfile(path) else b""


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
