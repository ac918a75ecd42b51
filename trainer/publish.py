"""Step 6, gate and publish: adapters that are better than the base model beyond noise go into the store and serve.

The gate looks at paired outcomes on held-out rows. Forcing it is possible, and stays on the card.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import AdapterCard, AdapterSet, PromptProfile, Release, Role
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import JsonObject, Tool, tools_digest

# A gain that chance gives once in a hundred runs is none.
LARGEST_P = 0.01
# What each role has to be better at than the base model.
GATED = {"selector": ("selection_first_turn", "selection_later_turns"), "arguments": ("arguments_exact",)}
# What a selector may not lose, in share of right answers.
LARGEST_LOSS = 0.02
KEPT = ("answered_in_text", "outside_the_toolset")
_PACKAGES = ("torch", "transformers", "peft", "tokenizers")


class GateRefused(Exception):
    """The adapters are not better; the message says at what."""


@dataclass(frozen=True)
class Trained:
    """A trained adapter: the folder with PEFT's files, and what it was made from."""

    folder: Path
    role: Role
    tool: str | None
    rank: int
    data_sha256: str


@dataclass(frozen=True)
class Origin:
    """What all adapters of one training have in common."""

    toolset: str
    tools: Sequence[Tool]
    model_dir: Path
    prompt_profile: PromptProfile
    seed: int
    activation: Sequence[int] | None = None


def verdict(numbers: JsonObject, roles: Sequence[str]) -> list[str]:
    """Why these figures are not good enough for these roles; empty when they are."""
    reasons = []
    for name in (name for role in roles for name in GATED[role]):
        entry = numbers[name]
        if entry["share"] <= entry["base"] or entry["p"] > LARGEST_P:
            reasons.append(f"{name}: {entry['share']:.1%} against {entry['base']:.1%} of the base model, p = {entry['p']:.2g}")
    for name in KEPT if "selector" in roles else ():
        entry = numbers[name]
        if entry["share"] < entry["base"] - LARGEST_LOSS:
            reasons.append(f"{name}: {entry['share']:.1%}, the base model has {entry['base']:.1%}")
    return reasons


def publish(
    trained: Sequence[Trained], origin: Origin, numbers: JsonObject, store: Path, *, force: bool = False, note: str = ""
) -> Release:
    """Publishes the adapters and promotes them together.

    Raises:
        GateRefused: they are not better than the base model, and `force` was not given.
        AdapterRefused: their files are not what the store takes.
    """
    roles = sorted({role for adapter in trained for role in _stands_for(adapter, trained)})
    reasons = verdict(numbers, roles)
    if reasons and not force:
        raise GateRefused("; ".join(reasons))
    gate: JsonObject = {"passed": not reasons, "forced": bool(reasons), "reasons": reasons, "figures": numbers}
    store.mkdir(parents=True, exist_ok=True)
    target = AdapterStore(store)
    names = {adapter: target.publish(adapter.folder, card(adapter, origin, gate)) for adapter in trained}
    return target.promote(origin.toolset, adapter_set(names, origin.tools), note=note)


def adapter_set(names: Mapping[Trained, str], tools: Sequence[Tool]) -> AdapterSet:
    """Who serves what: a joint adapter serves every tool that has none of its own, and selects where there is no selector."""
    by_role = {adapter.role: name for adapter, name in names.items()}
    by_tool = {adapter.tool: name for adapter, name in names.items() if adapter.tool}
    joint = by_role.get("joint")
    writers = {tool.name: by_tool.get(tool.name, joint) for tool in tools if tool.has_parameters}
    return AdapterSet(
        selector=by_role.get("selector", joint),
        arguments={tool: name for tool, name in writers.items() if name is not None},
    )


def card(adapter: Trained, origin: Origin, gate: JsonObject) -> AdapterCard:
    """Where the adapter comes from and what it fits."""
    return AdapterCard(
        toolset=origin.toolset,
        role=adapter.role,
        tool=adapter.tool,
        base_model=origin.model_dir.name,
        base_fingerprint=base_fingerprint(origin.model_dir),
        template_hash=PromptRenderer.load(origin.model_dir).template_hash,
        prompt_profile=origin.prompt_profile,
        tools_digest=tools_digest(list(origin.tools)),
        rank=adapter.rank,
        activation_tokens=list(origin.activation) if origin.activation else None,
        data_sha256=adapter.data_sha256,
        seed=origin.seed,
        gate=gate,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=hashes_of(adapter.folder),
    )


def _stands_for(adapter: Trained, trained: Sequence[Trained]) -> set[str]:
    if adapter.role != "joint":
        return {adapter.role}
    return {"arguments"} if any(other.role == "selector" for other in trained) else {"arguments", "selector"}
