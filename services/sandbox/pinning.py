"""To what a toolset is pinned: each tool as one digest over all that its server says of it, kept in toolset.lock.json.

tools.json is what models read, and its digest is what adapters are bound to; the lock adds what it has no place for (title,
outputSchema, annotations), the digests, and the package that was reviewed. It is written by `services.sandbox.pin`, and only
after a person approved it. Nothing here believes a server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.sandbox.frames import strict_json
from services.shared.contracts.tools import JsonObject, Tool, sha256_of

TOOLS_FILE = "tools.json"
LOCK_FILE = "toolset.lock.json"
LOCK_VERSION = 1
# The largest list there is by far, of 256 tools with generous schemas, stays below.
MAX_FILE_BYTES = 8 * 1024 * 1024
# Differences that an error message spells out; the command that it names shows all of them.
MAX_NAMED = 5

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class PinnedTool:
    """One tool with everything that a model, a client or a person acts upon."""

    tool: Tool
    title: str | None = None
    output_schema: JsonObject | None = None
    annotations: JsonObject | None = None

    def described(self) -> JsonObject:
        """What the digest is made of, in MCP's names."""
        return {
            "name": self.tool.name,
            "title": self.title,
            "description": self.tool.description,
            "inputSchema": self.tool.parameters,
            "outputSchema": self.output_schema,
            "annotations": self.annotations,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of `described`; the order of keys does not count."""
        return sha256_of(self.described())

    def locked(self) -> JsonObject:
        """Its entry in the lock: the digest, and what tools.json has no place for."""
        rest = {"title": self.title, "outputSchema": self.output_schema, "annotations": self.annotations}
        return {"sha256": self.digest, **{key: value for key, value in rest.items() if value is not None}}


@dataclass(frozen=True)
class Package:
    """What the server was installed from: `registry` is npm or pypi, `integrity` the hashes that its lock file has for it."""

    registry: str
    name: str
    version: str
    integrity: str = ""


@dataclass(frozen=True)
class Difference:
    """A tool that is not what it was: digests in hex, None where it did not or does not exist."""

    tool: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.tool} is new (sha256 {self.new})"
        if self.new is None:
            return f"{self.tool} is gone (sha256 {self.old})"
        return f"{self.tool} changed (sha256 {self.old} is now {self.new})"


def differences(pinned: Sequence[PinnedTool], live: Sequence[PinnedTool]) -> list[Difference]:
    """The tools that are missing, new, or described otherwise in one of the two lists, by name."""
    before = {tool.tool.name: tool.digest for tool in pinned}
    after = {tool.tool.name: tool.digest for tool in live}
    names = sorted(before.keys() | after.keys())
    return [Difference(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def named(found: Sequence[Difference]) -> str:
    """The first differences as text, for an error message."""
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return "; ".join(map(str, found[:MAX_NAMED])) + more


def lock_of(tools: Sequence[PinnedTool], package: Package | None) -> JsonObject:
    """The contents of toolset.lock.json."""
    return {
        "version": LOCK_VERSION,
        "package": vars(package) if package else None,
        "tools": {tool.tool.name: tool.locked() for tool in tools},
    }


def read_tools(directory: Path) -> list[Tool]:
    """The tools of tools.json; none where there is no such file.

    Raises:
        ValueError: says which entry cannot be used.
        OSError: it cannot be read.
    """
    entries = _read_json(directory / TOOLS_FILE)
    return [] if entries is None else tools_of(entries)


def tools_of(entries: Any) -> list[Tool]:
    """The tools of a list as OpenAI writes it: `{"type": "function", "function": {"name", "description", "parameters"}}` each.

    Raises:
        ValueError: says which entry cannot be used.
    """
    if not isinstance(entries, list):
        raise ValueError("it must be a list of tools, each with a `function`")
    tools = []
    for place, entry in enumerate(entries):
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            raise ValueError(f"entry {place} has no `function`")
        try:
            tools.append(Tool.model_validate(function))
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            raise ValueError(f"entry {place}: {'.'.join(map(str, found['loc']))}: {found['msg']}") from None
    if twice := sorted({tool.name for tool in tools if [other.name for other in tools].count(tool.name) > 1}):
        raise ValueError(f"it lists {', '.join(twice)} more than once")
    return tools


def read_lock(directory: Path, tools: Sequence[Tool], package: Package | None) -> tuple[PinnedTool, ...]:
    """The pinned tools, in the order of tools.json: they and the installed package are those that were approved.

    Raises:
        ValueError: there is no lock, it cannot be read, or it is of other tools or another package; says which.
        OSError: it cannot be read.
    """
    lock = _read_json(directory / LOCK_FILE)
    if lock is None:
        raise ValueError("it is missing, so nobody approved these tools")
    entries = lock.get("tools") if isinstance(lock, dict) else None
    if not isinstance(entries, dict) or lock.get("version") != LOCK_VERSION:
        raise ValueError(f"it must be an object with `version` {LOCK_VERSION}, `package` and `tools`")
    pinned = tuple(_pinned(tool, entries.get(tool.name)) for tool in tools)
    if unknown := sorted(entries.keys() - {tool.name for tool in tools}):
        raise ValueError(f"it pins {', '.join(unknown)}, which {TOOLS_FILE} does not have")
    approved = lock.get("package")
    if approved != (vars(package) if package else None):
        raise ValueError(f"it was approved for the package {approved}, but {package} is declared and locked here")
    return pinned


def read_locked(directory: Path, package: Package | None) -> tuple[tuple[PinnedTool, ...], str]:
    """The tools as far as tools.json and the lock tell, for comparing, and why they are not pinned; empty where they are."""
    try:
        tools = read_tools(directory)
    except (OSError, ValueError) as error:
        return (), f"{TOOLS_FILE} cannot be used: {error}"
    try:
        return read_lock(directory, tools, package), ""
    except (OSError, ValueError) as error:
        return tuple(PinnedTool(tool) for tool in tools), f"it cannot be used: {error}"


def locked_package(directory: Path, registry: str, name: str, version: str) -> Package:
    """The package with the hashes that its own lock file has: package-lock.json of npm, requirements.txt of pip.

    Raises:
        ValueError: the lock file has no such package, or another version of it.
        OSError: it cannot be read.
    """
    if registry == "npm":
        file = "package-lock.json"
        packages = (_read_json(directory / file) or {}).get("packages", {})
        entry = packages.get(f"node_modules/{name}", {})
        found, integrity = entry.get("version"), entry.get("integrity", "")
    else:
        file = "requirements.txt"
        path = directory / file
        requirements = _REQUIREMENT.findall(path.read_text()) if path.exists() else []
        found, rest = next(((version, rest) for each, version, rest in requirements if each == name), (None, ""))
        integrity = " ".join(sorted(re.findall(r"--hash=(sha256:[0-9a-f]{64})", rest)))
    if found != version:
        raise ValueError(f"package: {name} {version} is declared, but {file} has {found or 'no such package'}")
    if not integrity:
        raise ValueError(f"package: {file} has no hash for {name} {version}")
    return Package(registry, name, version, integrity)


def _pinned(tool: Tool, entry: Any) -> PinnedTool:
    if not isinstance(entry, dict):
        raise ValueError(f"it has no entry for {tool.name}")
    pinned = PinnedTool(tool, entry.get("title"), entry.get("outputSchema"), entry.get("annotations"))
    if entry.get("sha256") != pinned.digest:
        raise ValueError(f"{tool.name} is not what was approved: sha256 {entry.get('sha256')} is now {pinned.digest}")
    return pinned


def _read_json(path: Path) -> Any:
    """None where there is no such file."""
    if not path.exists():
        return None
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{path.name} has {size} bytes; at most {MAX_FILE_BYTES} are read")
    return strict_json(path.read_bytes())
