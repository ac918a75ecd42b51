"""Decides for how many adapters the engine has room, from what is published: slots, copies in memory, and their rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.shared.contracts.adapters import AdapterCard, Manifest

# The ranks that vLLM has memory layouts for (vllm/config/lora.py).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Without anything published: the rank that the paper trains with, and slots for a toolset of usual size.
USUAL_RANK = 32
LEAST_SLOTS = 8
# A toolset may gain a tool or two before the engine is started again.
SPARE_SLOTS = 2


@dataclass(frozen=True)
class LoraRoom:
    """`slots` adapters fit into one batch, `copies` are kept in main memory, none has a rank above `rank`."""

    slots: int
    copies: int
    rank: int


def room_for(
    manifests: Iterable[Manifest], cards: Mapping[str, AdapterCard], *, slots: int | None = None, rank: int | None = None
) -> LoraRoom:
    """Room for the current releases and their successors; `slots` and `rank` overrule what would be derived.

    `cards` by adapter name; adapters without one (damaged ones) are counted but have no say in the rank. A batch serves
    requests of all toolsets, but mostly of one: more adapters than slots still work, they take turns.
    """
    current = [manifest.current.adapters.names for manifest in manifests]
    busiest = max((len(names) for names in current), default=0)
    slots = slots or max(LEAST_SLOTS, busiest + SPARE_SLOTS)
    ranks = [cards[name].rank for names in current for name in names if name in cards]
    # While a release replaces another one, both are in use.
    copies = max(2 * sum(len(names) for names in current), 2 * slots)
    return LoraRoom(slots, copies, rank or _rounded_up(max(ranks, default=USUAL_RANK)))


def _rounded_up(rank: int) -> int:
    return next((allowed for allowed in RANKS if rank <= allowed), RANKS[-1])
