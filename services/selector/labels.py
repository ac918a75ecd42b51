"""Spells the labels of a vote as a trie of tokens: which one-token scores give the exact probability of every name.

`read_file` and `read_media_file` share their first tokens; each distinct beginning of a label is a node, and the
probability of a label is the product of the probabilities of its tokens, each given the node before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.shared.contracts.prompts import LabelTokens

Node = tuple[int, ...]


@dataclass(frozen=True)
class LabelTrie:
    """`shared` are the tokens that all labels begin with; `paths[label]` are the tokens after them (never empty).

    No path is the beginning of another one.
    """

    shared: Node
    paths: dict[str, Node]

    def nodes(self) -> dict[Node, list[int]]:
        """Every beginning of a path that is not a whole path, with the ids that may come next, ascending."""
        children: dict[Node, set[int]] = {}
        for path in self.paths.values():
            for depth, token in enumerate(path):
                children.setdefault(path[:depth], set()).add(token)
        return {node: sorted(ids) for node, ids in children.items()}


@dataclass(frozen=True)
class ScoringCall:
    """One engine call: the nodes whose next token is scored, and the ids that are scored at each of them."""

    nodes: list[Node]
    token_ids: list[int]


def build_trie(labels: Sequence[LabelTokens]) -> LabelTrie:
    """The trie of `labels` (two or more; their spellings differ and none begins another)."""
    shortest = min(len(label.ids) for label in labels)
    first = labels[0].ids
    shared = 0
    while shared < shortest - 1 and all(label.ids[shared] == first[shared] for label in labels):
        shared += 1
    return LabelTrie(shared=tuple(first[:shared]), paths={label.label: tuple(label.ids[shared:]) for label in labels})


def scoring_calls(trie: LabelTrie, max_ids: int) -> list[ScoringCall]:
    """As few engine calls as needed: the ids of one call are scored at all its nodes, and are at most `max_ids`.

    A toolset of usual size fits in one call. A node with more children than that appears in several.
    """
    calls: list[ScoringCall] = []
    nodes: list[Node] = []
    ids: set[int] = set()
    for node, children in trie.nodes().items():
        for part in _parts(children, max_ids):
            if nodes and len(ids | set(part)) > max_ids:
                calls.append(ScoringCall(nodes, sorted(ids)))
                nodes, ids = [], set()
            nodes.append(node)
            ids |= set(part)
    return [*calls, ScoringCall(nodes, sorted(ids))]


def _parts(ids: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
