"""What a count of right answers is worth: intervals, paired comparison, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        members[_bin(confidence, bins)].append(i)
    return [
        Bin(len(group), sum(sure[i] for i in group) / len(group), sum(right[i] for i in group) / len(group)) if group else None
        for group in members
    ]


def _bin(confidence: float, bins: int) -> int:
    return min(bins - 1, int(confidence * bins))


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: by how much confidence and share of right answers differ, averaged over bins of equal width."""
    found = [one for one in bins_of(sure, right, bins) if one]
    return sum(one.count * abs(one.sure - one.right) for one in found) / len(sure) if sure else 0.0


def calibration_interval(sure: Sequence[float], right: Sequence[bool], bins: int = 10, draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of the expected calibration error; (0, 1) when nothing was counted.

    The basic bootstrap over the rows (Davison and Hinkley 1997, section 5.2), always the same draws. Chance makes the error of a
    sample larger than the true one, and that of a sample drawn from it larger again: by as much the interval is set back, though
    its end never below the error that was found. Where it misses the true error, that is smaller.
    """
    if not sure:
        return 0.0, 1.0
    dice, rows = np.random.default_rng(0), np.arange(len(sure))
    gaps = np.zeros((len(sure), bins))
    # A bin's share of the error is the sum of its rows' gaps, over all rows.
    gaps[rows, [_bin(confidence, bins) for confidence in sure]] = np.subtract(sure, right, dtype=float)
    errors = [
        np.abs(np.bincount(dice.choice(rows, len(rows)), minlength=len(rows)) @ gaps).sum() / len(rows) for _ in range(draws)
    ]
    found, (low, high) = calibration_error(sure, right, bins), np.quantile(errors, [0.025, 0.975])
    return max(0.0, 2 * found - float(high)), max(found, 2 * found - float(low))
