"""Decides how long to wait before vLLM is started again."""

from __future__ import annotations

_FIRST_S = 1.0
_LONGEST_S = 30.0

# A run that has served this long was a good one: the next failure is a new story, not the next chapter.
GOOD_RUN_S = 60.0


def pause_s(failures: int) -> float:
    """Seconds before the next start, after `failures` bad runs in a row: 1, 2, 4, … 30."""
    return min(_FIRST_S * 2 ** (failures - 1), _LONGEST_S) if failures > 0 else 0.0
