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
# Of the texts that meet in a band each is compared with so many before it: what thousands share is a template, no text.
MOST = 1000
# Four standard deviations of the share of 128 equal hashes, at 80 %.
DOUBT = 0.14


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

    signatures = np.array([_signature(parts) for parts in sets]).reshape(len(sets), BANDS * ROWS)
    meetings: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, signature in enumerate(signatures):
        for band in range(BANDS):
            meetings[band, signature[band * ROWS : (band + 1) * ROWS].tobytes()].append(i)
    for members in meetings.values():
        for at, i in enumerate(members[1:], 1):
            earlier = members[max(0, at - MOST) : at]
            # The share of equal hashes is near that of equal pieces, and far quicker to tell.
            alike = (signatures[earlier] == signatures[i]).mean(axis=1) >= threshold - DOUBT
            for other in (earlier[place] for place in np.flatnonzero(alike)):
                a, b = find(other), find(i)
                if a != b and len(sets[other] & sets[i]) >= threshold * len(sets[other] | sets[i]):
                    root[b] = a
    return [find(i) for i in range(len(texts))]


# Multiply-shift (Dietzfelbinger et al., 1997): the product of 64 bits overflows, and its upper half is the hash.
_dice = np.random.default_rng(0)
_A = _dice.integers(0, 1 << 64, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_B = _dice.integers(0, 1 << 64, BANDS * ROWS, dtype=np.uint64)


def _signature(parts: set[str]) -> NDArray[np.uint64]:
    hashes = [int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big") for part in parts]
    values: NDArray[np.uint64] = (np.array(hashes, dtype=np.uint64)[:, None] * _A + _B) >> np.uint64(32)
    return np.asarray(values.min(axis=0), dtype=np.uint64)
