"""Which questions are nearly the same: MinHash over pieces of five letters, and the clusters that follow from it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# 32 bands of 4 hashes: a pair that shares 80 % of its pieces meets in some band with a probability of 0.99999997.
BANDS, ROWS = 32, 4
PIECE = 5
_PRIME = (1 << 61) - 1


def normal(text: str) -> str:
    """Without what a copy may differ in: capitals, spaces, punctuation at the ends."""
    return re.sub(r"\s+", " ", text.lower()).strip(" .!?")


def pieces(text: str) -> set[str]:
    """All runs of five letters."""
    text = normal(text)
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def clusters(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """For each text the number of its cluster; texts whose pieces overlap (Jaccard) by `threshold` or more share one."""
    sets = [pieces(text) for text in texts]
    root = list(range(len(texts)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    meetings: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, signature in enumerate(map(_signature, sets)):
        for band in range(BANDS):
            meetings[band, signature[band * ROWS : (band + 1) * ROWS].tobytes()].append(i)
    for members in meetings.values():
        for i in members[1:]:
            a, b = find(members[0]), find(i)
            if a != b and len(sets[members[0]] & sets[i]) >= threshold * len(sets[members[0]] | sets[i]):
                root[b] = a
    return [find(i) for i in range(len(texts))]


_dice = np.random.default_rng(0)
_A = _dice.integers(1, 1 << 31, BANDS * ROWS, dtype=np.uint64)
_B = _dice.integers(0, 1 << 31, BANDS * ROWS, dtype=np.uint64)


def _signature(parts: set[str]) -> NDArray[np.uint64]:
    hashes = [int.from_bytes(hashlib.blake2b(part.encode(), digest_size=4).digest(), "big") for part in parts]
    values: NDArray[np.uint64] = (np.array(hashes, dtype=np.uint64)[:, None] * _A + _B) % np.uint64(_PRIME)
    return np.asarray(values.min(axis=0), dtype=np.uint64)
