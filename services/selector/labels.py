"""Spells the labels of a vote as a trie of tokens: which one-token scores give the exact probability of every name.

`read_file` and `read_media_file` share their first tokens; each distinct beginning of a label is a node, and the
probability of a label is the product of the probabilities of its tokens, each given the node before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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


# Natural logs of the model's own probabilities, of the tokens that may follow each node that was scored so far.
LogProbs = Mapping[Node, Mapping[int, float]]

# Names that are left unread hold together at most this share of the probability of those read.
NEGLIGIBLE = 1e-4
# After so many waves everything that is left is read at once: a model that spreads its votes is not made to wait.
_PATIENCE = 3
# The engine has a limit on the prompts of all its callers (its max_queued_requests): a vote takes a part of it, not all.
NODES_PER_CALL = 64


def next_wave(trie: LabelTrie, logprobs: LogProbs, *, wave: int) -> list[Node]:
    """The nodes to score in the `wave`th call to the engine, counted from 0; empty when the rest is negligible.

    The root comes first. A trained model has then all but decided, and only the likely branches are followed to their ends:
    a few prompts instead of one for every node. What an unread branch could hold is known from its first token.
    """
    if not logprobs:
        return [()]
    children = trie.nodes()
    read = [total for path in trie.paths.values() if (total := path_logprob(path, logprobs)) is not None]
    ahead = {node: total for node in children if node not in logprobs and (total := path_logprob(node, logprobs)) is not None}
    likeliest = sorted(ahead, key=lambda node: -ahead[node])
    if wave >= _PATIENCE:
        taken = likeliest
    else:
        taken = []
        while likeliest and not _negligible([ahead[node] for node in likeliest], [*read, *(ahead[node] for node in taken)]):
            taken.append(likeliest.pop(0))
    return [node for node in children if any(node[: len(start)] == start for start in taken)]


def path_logprob(path: Node, logprobs: LogProbs) -> float | None:
    """Of a whole path or of a node: the sum over its tokens; None while a node on the way is unread."""
    if any(path[:depth] not in logprobs for depth in range(len(path))):
        return None
    return math.fsum(logprobs[path[:depth]][token] for depth, token in enumerate(path))


def _negligible(few: Sequence[float], most: Sequence[float]) -> bool:
    if not most:
        return False
    largest = max(*few, *most)
    return math.fsum(math.exp(x - largest) for x in few) <= NEGLIGIBLE * math.fsum(math.exp(x - largest) for x in most)


def scoring_calls(trie: LabelTrie, wave: Iterable[Node], max_ids: int) -> list[ScoringCall]:
    """As few engine calls as needed, of at most `NODES_PER_CALL` nodes and `max_ids` ids, which are scored at all its nodes.

    A toolset of usual size fits in one call. A node with more children than that appears in several.
    """
    children_of = trie.nodes()
    calls: list[ScoringCall] = []
    nodes: list[Node] = []
    ids: set[int] = set()
    for node in wave:
        for part in _parts(children_of[node], max_ids):
            if nodes and (len(nodes) == NODES_PER_CALL or len(ids | set(part)) > max_ids):
                calls.append(ScoringCall(nodes, sorted(ids)))
                nodes, ids = [], set()
            nodes.append(node)
            ids |= set(part)
    return [*calls, ScoringCall(nodes, sorted(ids))]


def _parts(ids: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
