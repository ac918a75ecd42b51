"""How often a call was repeated without a new result, from what the request shows and what was remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from services.shared.contracts.calls import Ladder, MadeCall, Standing
from services.shared.contracts.tools import sha256_of


class Observation(NamedTuple):
    """One call seen with its result, as digests: the cache never holds what was asked or answered.

    `call` is the digest of the call's id, so that a call shown again by a longer history or a retry is the same observation.
    """

    call_key: str
    result_digest: str
    call: str


def observations(calls: Iterable[MadeCall]) -> list[Observation]:
    """The calls of one request, in its order."""
    return [Observation(call.call_key, call.result_digest, sha256_of(call.call_id)) for call in calls]


def repeats(shown: Sequence[Observation], remembered: Collection[Observation]) -> dict[str, int]:
    """For each call key that the request shows: how many calls gave the result which it shows last.

    Distinct call ids are counted, whoever saw them; never less than the run of equal results at the end of the
    request's own history, which also counts for clients that give every call the same id.
    """
    last: dict[str, str] = {}
    run: dict[str, int] = {}
    for key, result, _ in shown:
        run[key] = run[key] + 1 if last.get(key) == result else 1
        last[key] = result
    distinct = Counter((key, result) for key, result, _ in {*shown, *remembered})
    return {key: max(distinct[key, result], run[key]) for key, result in last.items()}


def standings(counts: Mapping[str, int], tools: Mapping[str, str], ladder: Ladder) -> list[Standing]:
    """The calls that have reached a step of the ladder; `tools` names the tool of each call key."""
    return [
        Standing(tool=tools[key], call_key=key, repeats=count, step=step)
        for key, count in counts.items()
        if (step := ladder.step(count)) != "none"
    ]


def surplus(shown: Sequence[Observation], remembered: Collection[Observation], limit: int) -> list[Observation]:
    """What to forget so that `limit` observations remain: results that the request no longer shows go first."""
    last = {key: result for key, result, _ in shown}
    by_worth = sorted(remembered, key=lambda seen: (last.get(seen.call_key) != seen.result_digest, seen))
    return by_worth[limit:]
