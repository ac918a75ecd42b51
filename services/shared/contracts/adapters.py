"""Adapters: what a published one is, how it is named, and which of them serve a toolset together.

    <store>/<toolset>.<alias>--<sha12>/      one adapter, immutable: written once, renamed into place, never touched again
        adapter_config.json                  PEFT's
        adapter_model.safetensors            the weights
        card.json                            AdapterCard; its SHA-256 begins with <sha12>, and it names the hash of each file
    <store>/<toolset>.manifest.json          Manifest: the release that serves now, and those before it
    <store>/<toolset>.training.json          Training: when one began last, and how the last ones ended

The name commits to the card and the card to the files, so whoever knows the name knows every byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.shared.contracts.errors import Unavailable
from services.shared.contracts.tools import JsonObject, Tool, ToolsetRef, sha256_of

Role = Literal["selector", "arguments", "joint"]
PromptProfile = Literal["full", "compact"]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "card.json"
MANIFEST_SUFFIX = ".manifest.json"
TRAINING_SUFFIX = ".training.json"
TrainingEvent = Literal["started", "published", "refused", "failed"]

# The last part of an alias whose adapter is not of one tool.
SELECTOR_ALIAS = "select"
JOINT_ALIAS = "joint"

TOOLSET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_TOOL_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?"
ADAPTER_NAME = re.compile(rf"(?P<toolset>{TOOLSET_NAME.pattern})\.(?P<alias>{_TOOL_NAME})--(?P<sha12>[0-9a-f]{{12}})")

# Releases that a manifest remembers: as many publishes can pass while one request is in flight.
HISTORY = 32


class AdapterCard(BaseModel):
    """Where an adapter comes from and what it fits. Published with it, hashed into its name.

    `files` gives the SHA-256 (hex) of every other file in the directory. `activation_tokens` are the token ids from whose
    last occurrence on the adapter acts (activated LoRA, arXiv 2504.12397); None for plain LoRA, which acts everywhere.
    An adapter fits one base model (`base_fingerprint`), one way of writing prompts (`template_hash`, `prompt_profile`)
    and one list of tools (`tools_digest`). `continues` names the published adapter whose
    training went on in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    toolset: str = Field(pattern=rf"^{TOOLSET_NAME.pattern}$")
    role: Role
    tool: str | None = Field(default=None, pattern=rf"^{_TOOL_NAME}$")
    base_model: str
    base_fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    template_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    prompt_profile: PromptProfile
    tools_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    rank: int = Field(ge=1)
    activation_tokens: list[int] | None = Field(default=None, min_length=1)
    data_sha256: str
    # Left out where there is none: the name is the hash of what is written, and older cards do without.
    continues: str | None = Field(default=None, exclude_if=lambda name: name is None)
    seed: int
    gate: JsonObject = Field(default_factory=dict)
    """What it was measured to do before it was published: metrics, counts, the verdict."""
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: str
    files: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _arguments_are_of_one_tool(self) -> AdapterCard:
        if (self.role == "arguments") != (self.tool is not None):
            raise ValueError("an adapter for arguments names its tool, any other names none")
        return self

    @property
    def alias(self) -> str:
        """The name without its version, such as `filesystem.select`."""
        last = self.tool or {"selector": SELECTOR_ALIAS}.get(self.role, JOINT_ALIAS)
        return f"{self.toolset}.{last}"

    @property
    def name(self) -> str:
        """The name of its directory, and the `model` by which the engine serves it."""
        return f"{self.alias}--{sha256_of(self.model_dump(mode='json'))[:12]}"


class AdapterSet(BaseModel):
    """The adapters of one toolset that belong together, by directory name; what has none is served by the base model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selector: str | None = None
    arguments: dict[str, str] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every adapter once, the selector first."""
        return list(dict.fromkeys([*([self.selector] if self.selector else []), *self.arguments.values()]))


class Release(BaseModel):
    """One set of adapters, promoted as the `number`th of its toolset. A roll-back is a new release of an old set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    adapters: AdapterSet
    promoted_at: str
    note: str = ""


class Manifest(BaseModel):
    """`<toolset>.manifest.json`: `releases` newest first; the first one serves. At most `HISTORY` are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    toolset: str = Field(pattern=rf"^{TOOLSET_NAME.pattern}$")
    releases: list[Release] = Field(min_length=1, max_length=HISTORY)

    @property
    def current(self) -> Release:
        """The release that serves."""
        return self.releases[0]

    def release(self, number: int) -> Release | None:
        """The release of that number, if it is remembered."""
        return next((release for release in self.releases if release.number == number), None)


class Training(BaseModel):
    """`<toolset>.training.json`: when each event happened last, in seconds since 1970; 0 for one that never did.

    `refused` is the gate's: the adapters are no better than what serves.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    started: float = Field(default=0.0, ge=0)
    published: float = Field(default=0.0, ge=0)
    refused: float = Field(default=0.0, ge=0)
    failed: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Serving:
    """Who serves one step of a turn: the `model` to ask, and the `tools` as its prompts of that `profile` show them."""

    model: str
    tools: Sequence[Tool]
    profile: PromptProfile = "full"
    release: int | None = None


@dataclass(frozen=True)
class ServedRelease:
    """A release whose adapters were verified and fit what is served; `cards` by adapter name."""

    toolset: str
    number: int
    adapters: AdapterSet
    cards: Mapping[str, AdapterCard]

    def selector(self, toolset: ToolsetRef, tools: Sequence[Tool]) -> Serving | None:
        """Who votes on `tools`, which belong to `toolset`; None where no adapter can."""
        return self._serving(self.adapters.selector, toolset, tools)

    def writer(self, toolset: ToolsetRef, tools: Sequence[Tool], tool: str) -> Serving | None:
        """Who writes the arguments of `tool`, one of `tools`; None where no adapter can."""
        return self._serving(self.adapters.arguments.get(tool), toolset, tools)

    def _serving(self, name: str | None, toolset: ToolsetRef, tools: Sequence[Tool]) -> Serving | None:
        if name is None:
            return None
        card = self.cards[name]
        if card.prompt_profile == "full":
            return Serving(name, tools, "full", self.number)
        # Whoever is not shown the schemas must have learned these very tools, and is shown all of their names.
        if card.tools_digest != toolset.digest:
            return None
        return Serving(name, [Tool(name=known) for known in toolset.tools], "compact", self.number)


class Releases(Protocol):
    """Whoever knows what serves."""

    def current(self, toolset: str) -> ServedRelease | None:
        """The release of a toolset that serves now; None for the base model.

        Raises:
            Unavailable: it is not known yet.
        """
        ...

    async def numbered(self, toolset: str, number: int) -> ServedRelease:
        """That release, whether it serves now, served before, or is about to.

        Raises:
            Unavailable: the store does not remember it.
        """
        ...


class NoReleases:
    """What a deployment without an adapter store serves: the base model alone."""

    def current(self, toolset: str) -> ServedRelease | None:
        """None."""
        return None

    async def numbered(self, toolset: str, number: int) -> ServedRelease:
        """Unavailable."""
        raise Unavailable(f"release {number} of toolset {toolset!r} was asked for, but no adapter store is configured here")
