"""Step 6, gate and publish: adapters that are better than the base model beyond noise go into the store and serve.

The gate looks at paired outcomes on held-out rows. Where adapters serve already, new ones have to be better at something than
these, and worse at nothing. Forcing it is possible, and stays on the card with the reasons against it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import AdapterCard, AdapterSet, PromptProfile, Release, Role
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.errors import AdapterRefused
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import JsonObject, Tool, tools_digest

# A gain that chance gives once in a hundred runs is none.
LARGEST_P = 0.01
# What each role has to be better at than the base model.
GATED = {"selector": ("selection_first_turn", "selection_later_turns"), "arguments": ("arguments_exact",)}
# However bad the base model is, what serves is at least this good.
FLOORS = {
    # A wrong tool spoils the whole conversation; below this, two in five would begin with one.
    "selection_first_turn": 0.60,
    # Going on or stopping is right by a coin's toss in half of the turns.
    "selection_later_turns": 0.60,
    # Without a grammar. Served, the grammar mends their form, never their values: most calls would fail or do something else.
    "arguments_exact": 0.40,
}
# What a selector may not lose, in share of right answers.
LARGEST_LOSS = 0.02
KEPT = ("answered_in_text", "outside_the_toolset")
_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")


class GateRefused(RuntimeError):
    """The adapters are not better; the message says at what."""


@dataclass(frozen=True)
class Trained:
    """A trained adapter: the folder with PEFT's files, and what it was made from.

    `continues` names the one it went on from. What is `published` has its name and its card already.
    """

    folder: Path
    role: Role
    tool: str | None
    rank: int
    data_sha256: str
    continues: str | None = None
    published: bool = False


@dataclass(frozen=True)
class Origin:
    """What all adapters of one training have in common."""

    toolset: str
    tools: Sequence[Tool]
    model_dir: Path
    prompt_profile: PromptProfile
    seed: int
    activation: Sequence[int] | None = None


@dataclass(frozen=True)
class Serving:
    """The adapters of the release that serves, to be evaluated like new ones, with their own activation tokens."""

    release: int
    adapters: Sequence[Trained]
    activation: Sequence[int] | None


def roles_of(trained: Sequence[Trained]) -> list[str]:
    """What these adapters do together, and have to be good at."""
    return sorted({role for adapter in trained for role in _stands_for(adapter, trained)})


def verdict(numbers: JsonObject, roles: Sequence[str]) -> list[str]:
    """Why these figures are not good enough for these roles; empty when they are."""
    gated = [name for role in roles for name in GATED[role]]
    kept = KEPT if "selector" in roles else ()
    return [*_against_base(numbers, gated, kept), *_against_published(numbers, gated, kept)]


def _against_base(numbers: JsonObject, gated: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    for name in gated:
        entry = numbers[name]
        if entry["share"] <= entry["base"] or entry["p"] > LARGEST_P:
            yield f"{name}: {entry['share']:.1%} against {entry['base']:.1%} of the base model, p = {entry['p']:.2g}"
        if entry["share"] < FLOORS[name]:
            yield f"{name}: {entry['share']:.1%}, at least {FLOORS[name]:.0%} has to be right"
    for name in kept:
        entry = numbers[name]
        if entry["share"] < entry["base"] - LARGEST_LOSS:
            yield f"{name}: {entry['share']:.1%}, the base model has {entry['base']:.1%}"


def _against_published(numbers: JsonObject, gated: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    known = [name for name in (*gated, *kept) if "published" in numbers[name]]
    changed = [name for name in known if numbers[name]["p_published"] <= LARGEST_P]
    better = [name for name in changed if numbers[name]["share"] > numbers[name]["published"]]
    for name in changed:
        if name not in better:
            yield f"{name}: {numbers[name]['share']:.1%}, the published adapters have {numbers[name]['published']:.1%}"
    # The same adapters again would differ from themselves by nothing but noise.
    if known and not set(better) & set(gated):
        yield f"none of {', '.join(gated)} is better than with the published adapters, beyond noise"


def publish(
    trained: Sequence[Trained], origin: Origin, numbers: JsonObject, store: Path, *, force: bool = False, note: str = ""
) -> Release:
    """Publishes the adapters that are not yet, and promotes all of them together.

    Raises:
        GateRefused: the figures are not good enough, and `force` was not given.
        AdapterRefused: their files are not what the store takes.
    """
    reasons = verdict(numbers, roles_of(trained))
    if reasons and not force:
        raise GateRefused("; ".join(reasons))
    gate: JsonObject = {"passed": not reasons, "forced": bool(reasons), "reasons": reasons, "figures": numbers}
    store.mkdir(parents=True, exist_ok=True)
    target = AdapterStore(store)
    names = {
        adapter: adapter.folder.name if adapter.published else target.publish(adapter.folder, card(adapter, origin, gate))
        for adapter in trained
    }
    return target.promote(origin.toolset, adapter_set(names, origin.tools), note=note)


def serving(origin: Origin, store: Path) -> Serving | None:
    """What serves the toolset now; None where that is the base model, or adapters that no new ones can be compared with.

    Raises:
        Unavailable: the store cannot be read.
    """
    target = AdapterStore(store)
    try:
        manifest = target.manifest(origin.toolset) if store.is_dir() else None
        cards = {name: target.verify(name) for name in manifest.current.adapters.names} if manifest else {}
    except AdapterRefused:
        # Then it is refused by whoever serves, too.
        return None
    activations = {tuple(one.activation_tokens or ()) for one in cards.values()}
    expected = (
        base_fingerprint(origin.model_dir),
        _template_hash(origin),
        origin.prompt_profile,
        tools_digest(list(origin.tools)),
    )
    fits = {(one.base_fingerprint, one.template_hash, one.prompt_profile, one.tools_digest) for one in cards.values()}
    if manifest is None or fits != {expected} or len(activations) > 1:
        return None
    adapters = [
        Trained(store / name, one.role, one.tool, one.rank, one.data_sha256, one.continues, published=True)
        for name, one in cards.items()
    ]
    return Serving(manifest.current.number, adapters, activations.pop() or None)


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
        template_hash=_template_hash(origin),
        prompt_profile=origin.prompt_profile,
        tools_digest=tools_digest(list(origin.tools)),
        rank=adapter.rank,
        activation_tokens=list(origin.activation) if origin.activation else None,
        data_sha256=adapter.data_sha256,
        continues=adapter.continues,
        seed=origin.seed,
        gate=gate,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES if importlib.util.find_spec(name)},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=hashes_of(adapter.folder),
    )


def _template_hash(origin: Origin) -> str:
    return PromptRenderer.load(origin.model_dir).template_hash


def _stands_for(adapter: Trained, trained: Sequence[Trained]) -> set[str]:
    if adapter.role != "joint":
        return {adapter.role}
    return {"arguments"} if any(other.role == "selector" for other in trained) else {"arguments", "selector"}


if __name__ == "__main__":
    # The driver imports this file.
    from trainer.__main__ import main

    raise SystemExit(main())
