"""What a toolset is: the directory deploy/toolsets/<name> with toolset.yaml, the pinned tools.json, and its MCP server."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from services.sandbox.arguments import ArgumentChecker
from services.sandbox.errors import ToolsetNotReady, UnknownTool, UnknownToolset
from services.sandbox.limits import Limits, tightened
from services.shared.contracts.tools import Tool, tools_digest


@dataclass(frozen=True)
class Toolset:
    """One MCP server and the tools it is pinned to.

    `command` is what runs inside the sandbox, where the directory is at /toolset and the files at /workspace.
    `requires` are the files that `setup` puts there.
    """

    name: str
    directory: Path
    command: tuple[str, ...]
    description: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    setup: str = ""
    limits: Limits = field(default_factory=Limits)
    tools: tuple[Tool, ...] = ()
    checkers: dict[str, ArgumentChecker] = field(default_factory=dict, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """What the live server must list, as `contracts.tools.tools_digest` counts it."""
        return tools_digest(list(self.tools))

    def checker(self, tool: str) -> ArgumentChecker:
        """The argument checker of `tool`.

        Raises:
            UnknownTool: names the tools that there are.
        """
        if tool not in self.checkers:
            known = ", ".join(sorted(self.checkers)) or "none"
            raise UnknownTool(f"toolset {self.name!r} has no tool {tool!r}; it has: {known}")
        return self.checkers[tool]

    def missing_files(self) -> list[str]:
        """The files of `requires` that are not there."""
        return [name for name in self.requires if not (self.directory / name).exists()]


class Toolsets:
    """The toolsets below one directory. A changed file is read again at the next look; a broken one is an error then."""

    def __init__(self, directory: Path, ceiling: Limits) -> None:
        self._directory = directory
        self._ceiling = ceiling
        self._read: dict[str, tuple[tuple[int, ...], Toolset]] = {}

    def names(self) -> list[str]:
        """Every directory that has a toolset.yaml, in order."""
        return sorted(path.parent.name for path in self._directory.glob("*/toolset.yaml"))

    def get(self, name: str, *, pinned: bool = True) -> Toolset:
        """One toolset; without `pinned` it may lack its tools.json.

        Raises:
            UnknownToolset: names the toolsets that there are.
            ToolsetNotReady: its files cannot be used.
        """
        # Only names that were listed become paths: the name came over the wire.
        if name not in self.names():
            known = ", ".join(self.names()) or f"none below {self._directory}"
            raise UnknownToolset(f"there is no toolset {name!r}; registered are: {known}")
        directory = self._directory / name
        files = [directory / "toolset.yaml", directory / "tools.json"]
        stamp = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)
        if name not in self._read or self._read[name][0] != stamp:
            self._read[name] = (stamp, read_toolset(directory, self._ceiling))
        toolset = self._read[name][1]
        if pinned and not toolset.tools:
            raise ToolsetNotReady(f"toolset {name!r} has no tools.json; write it with: python -m services.sandbox.pin {name}")
        return toolset


def read_toolset(directory: Path, ceiling: Limits) -> Toolset:
    """The toolset in `directory`, its limits below `ceiling`.

    Raises:
        ToolsetNotReady: says which file and which entry cannot be used.
    """
    path = directory / "toolset.yaml"
    try:
        entries = yaml.safe_load(path.read_text())
        limits = _limits(entries.pop("limits", {}))
        known = {item.name for item in fields(Toolset)} - {"name", "directory", "limits", "tools", "checkers"}
        if unknown := set(entries) - known:
            raise ValueError(f"unknown entries {sorted(unknown)}; known are {sorted(known)}")
        command = entries.pop("command")
        if not isinstance(command, list) or not command:
            raise ValueError("command must be a list: a program and its arguments")
        environment = {key: str(value) for key, value in (entries.pop("environment", None) or {}).items()}
        toolset = Toolset(
            name=directory.name,
            directory=directory.resolve(),
            command=tuple(str(part) for part in command),
            environment=environment,
            requires=tuple(entries.pop("requires", ())),
            limits=tightened(limits, ceiling),
            **entries,
        )
        path = directory / "tools.json"
        tools = tuple(_tool(entry) for entry in json.loads(path.read_text())) if path.exists() else ()
    except KeyError as error:
        raise ToolsetNotReady(f"{path} lacks {error}") from None
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ToolsetNotReady(f"{path} cannot be used: {error}") from None
    toolset.checkers.update({tool.name: ArgumentChecker(toolset.name, tool) for tool in tools})
    return Toolset(**{**vars(toolset), "tools": tools})


def differing_tools(pinned: tuple[Tool, ...], live: list[Tool]) -> list[str]:
    """Names of the tools that are missing, new, or described otherwise in one of the two lists."""
    before = {tool.name: tool.openai() for tool in pinned}
    after = {tool.name: tool.openai() for tool in live}
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _limits(entries: dict[str, Any]) -> Limits:
    for name, value in entries.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise ValueError(f"limits: {name} must be a number above 0, not {value!r}")
    return Limits(**entries)


def _tool(entry: dict[str, Any]) -> Tool:
    return Tool(**entry["function"])
