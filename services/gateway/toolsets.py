"""The registered toolsets: which names clients may use as a model, and the tools that come with them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from services.gateway.wire.requests import MAX_TOOLS
from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.errors import ModelNotFound
from services.shared.contracts.tools import Tool, ToolsetRef, tools_digest

log = structlog.get_logger()

# A tool's name, and the names of its parameters.
Outline = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Toolset:
    """A registered toolset with the tools that its lock pinned."""

    name: str
    tools: Sequence[Tool]
    digest: str

    @cached_property
    def outlines(self) -> frozenset[Outline]:
        """What its tools are known by."""
        return frozenset(_outline(tool) for tool in self.tools)


class Catalogue:
    """The base model and the toolsets, by the names that a request may give as `model`."""

    def __init__(self, base_model: str, toolsets: Sequence[Toolset]) -> None:
        self.base_model = base_model
        self.toolsets: Mapping[str, Toolset] = {toolset.name: toolset for toolset in toolsets}

    def replace(self, other: Catalogue) -> None:
        """The toolsets of `other` from now on; turns that run keep the references they have."""
        self.toolsets = other.toolsets

    @property
    def models(self) -> list[str]:
        """All names, the base model first."""
        return [self.base_model, *self.toolsets]

    def default_tools(self, model: str) -> Sequence[Tool]:
        """The tools that a request for `model` gets when it brings none.

        Raises:
            ModelNotFound: naming the nearest name that exists, or the toolset of an adapter.
        """
        if model == self.base_model:
            return []
        if model in self.toolsets:
            return self.toolsets[model].tools
        adapter = ADAPTER_NAME.fullmatch(model)
        if adapter and adapter["toolset"] in self.toolsets:
            raise ModelNotFound(
                f"{model!r} is an adapter, which serves one step of a turn; ask for its toolset, model {adapter['toolset']!r}",
                param="model",
            )
        near = difflib.get_close_matches(model, self.models, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModelNotFound(
            f"there is no model {model!r}; {hint}GET /v1/models lists them: {', '.join(self.models)}", param="model"
        )

    def toolset_of(self, tools: Sequence[Tool]) -> ToolsetRef | None:
        """The smallest registered toolset that has all of these tools; None for tools that nobody registered.

        A tool is the same when its name and the names of its parameters are: agent frameworks rewrite descriptions and
        schemas (titles, `additionalProperties`, everything required), and callers may leave tools out.
        """
        wanted = {_outline(tool) for tool in tools}
        fitting = [toolset for toolset in self.toolsets.values() if wanted <= toolset.outlines]
        if not wanted or not fitting:
            return None
        found = min(fitting, key=lambda toolset: len(toolset.tools))
        return ToolsetRef(name=found.name, digest=found.digest, tools=[tool.name for tool in found.tools])

    def in_order(self, toolset: ToolsetRef, tool: Tool) -> Tool:
        """A tool of `toolset`, its parameters in the order of the registered schema.

        Arguments are constrained to the order of the schema, and adapters have learned one; JSON libraries and frameworks on
        the way to us sort keys as they like. A tool that is registered no more since the turn began stays as it is.
        """
        now = self.toolsets.get(toolset.name)
        registered = next((each for each in now.tools if each.name == tool.name), None) if now else None
        if registered is None:
            return tool
        return tool.model_copy(update={"parameters": _in_order_of(registered.parameters, tool.parameters)})


def _in_order_of(model: Any, schema: Any) -> Any:
    """`schema` with the properties that `model` has too in the order of `model`, on every level; those of its own come last."""
    if not (isinstance(model, dict) and isinstance(schema, dict)):
        return schema
    ordered = {key: _in_order_of(model.get(key), value) for key, value in schema.items()}
    theirs, ours = ordered.get("properties"), model.get("properties")
    if isinstance(theirs, dict) and isinstance(ours, dict):
        ordered["properties"] = {key: theirs[key] for key in (*(key for key in ours if key in theirs), *theirs)}
    return ordered


def _outline(tool: Tool) -> Outline:
    properties = tool.parameters.get("properties")
    return tool.name, tuple(sorted(properties)) if isinstance(properties, dict) else ()


def read_catalogue(base_model: str, folder: Path) -> Catalogue:
    """Reads `<folder>/<name>/tools.json` of every toolset; one with more tools than a decision can have is left out, and told.

    Raises:
        ValueError: naming the file that cannot be read as a list of OpenAI tools.
    """
    toolsets = []
    for file in sorted(folder.glob("*/tools.json")):
        try:
            tools = [Tool.model_validate(entry["function"]) for entry in json.loads(file.read_text())]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a list of OpenAI tools: {error}") from error
        if len(tools) > MAX_TOOLS:
            problem = f"it has {len(tools)} tools; at most {MAX_TOOLS} are possible: split it"
            log.error("toolset left out", file=str(file), error=problem)
            continue
        toolsets.append(Toolset(file.parent.name, tools, tools_digest(tools)))
    return Catalogue(base_model, toolsets)
