"""Decides which rows of a batch are multiplied with which adapter's weights, in as few products as is sensible."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch

# Rows that follow one another are used where they lie. A run of fewer than this is gathered with the others of its adapter:
# copying a few rows costs less than a product of their own.
_LONG_RUN = 16


class Group(NamedTuple):
    """Rows of one adapter: `rows` is a range, or their indices (int64)."""

    slot: int
    rows: slice | torch.Tensor


def group_rows(slots: list[int]) -> list[Group]:
    """The groups of a batch whose row i belongs to the adapter in slot `slots[i]`; -1, which is no adapter, is in no group."""
    long: list[Group] = []
    short: dict[int, list[range]] = {}
    start = 0
    for slot, run in groupby(slots):
        rows = range(start, start := start + sum(1 for _ in run))
        if slot < 0:
            continue
        if len(rows) >= _LONG_RUN:
            long.append(Group(slot, slice(rows.start, rows.stop)))
        else:
            short.setdefault(slot, []).append(rows)
    return long + [Group(slot, _rows(runs)) for slot, runs in short.items()]


def _rows(runs: list[range]) -> slice | torch.Tensor:
    if len(runs) == 1:
        return slice(runs[0].start, runs[0].stop)
    return torch.tensor([row for run in runs for row in run], dtype=torch.long)
