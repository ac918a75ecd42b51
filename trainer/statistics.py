"""What a count of right answers is worth: intervals, paired comparison, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The 97.5 % quantile of the normal distribution: intervals are of 95 %.
_Z = 1.959964


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) when nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Two-sided exact p that both do equally well on the same rows; 1.0 when they never differ."""
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    n, few = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / (1 << n))


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is within one step of the scale: how many, their mean confidence, the share of right ones."""

    count: int
    sure: float
    right: float


def bins_of(sure: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin | None]:
    """Confidences in `bins` steps of equal width, lowest first; None where no row is."""
    members: list[list[int]] = [[] for _ in range(bins)]
    for i, confidence in enumerate(sure):
        members[min(bins - 1, int(confidence * bins))].append(i)
    return [
        Bin(len(group), sum(sure[i] for i in group) / len(group), sum(right[i] for i in group) / len(group)) if group else None
        for group in members
    ]


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: by how much confidence and share of right answers differ, averaged over bins of equal width."""
    found = [one for one in bins_of(sure, right, bins) if one]
    return sum(one.count * abs(one.sure - one.right) for one in found) / len(sure) if sure else 0.0
