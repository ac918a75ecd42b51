"""Failures: which calls have failed alike so often, with nothing new since, that they are not made again.

The loop ladder is patient, because what is polled gives the same result for a while. A call that fails twice alike although
nothing else has succeeded in between fails a third time. Whatever may have changed the world starts the count anew: a result
that is new and no error, and the user who speaks.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.shared.contracts.calls import MadeCall
from services.shared.contracts.tools import JsonObject, sha256_of

# The wire has no mark for an error: it shows in how a result begins. Counts of none (`0 failed`) and negations are no errors.
_WORDS = (
    r"\w*error|\w*exception|traceback|failed|failure|denied|forbidden|unauthorized|invalid|unknown|unable|cannot|could not"
    r"|not found|not allowed|no such|does not exist|doesn't exist|timed out"
)
_BEGINNING = re.compile(rf"\W*(?:(?!(?:no|0|without)\b)\w+\W+){{0,5}}?(?:{_WORDS})\b(?!\.\w|\W{{0,3}}0\b)", re.IGNORECASE)
_ERRNO = re.compile(r"\W*(?:" + "|".join(sorted(set(errno.errorcode.values()))) + r")\b")


@dataclass(frozen=True)
class Failing:
    """A tool whose call failed alike `times` times, with nothing new since."""

    tool: str
    times: int


def failing(calls: Sequence[MadeCall], most: int) -> dict[str, Failing]:
    """By `likeness`, the calls that failed alike at least `most` times at the end of `calls`; 0 turns it off."""
    known: set[tuple[str, str]] = set()
    counts: dict[tuple[str, str], int] = {}
    tools: dict[str, str] = {}
    for call in calls:
        shown = (call.call_key, call.result_digest)
        if is_failure(call.result):
            same = likeness(call.tool, call.arguments)
            tools[same] = call.tool
            counts[same, call.result_digest] = counts.get((same, call.result_digest), 0) + 1
        elif shown not in known:
            counts.clear()
        known.add(shown)
    return {same: Failing(tools[same], times) for (same, _), times in counts.items() if most and times >= most}


def is_failure(result: str) -> bool:
    """Whether a result reads as an error: JSON that says so, the name of an error number, or a word for it at its beginning."""
    text = result.lstrip()
    if text.startswith("{"):
        return _says_error(text)
    return bool(_ERRNO.match(text[:200]) or _BEGINNING.match(text.split("\n", 1)[0][:200]))


def likeness(tool: str, arguments: str) -> str:
    """What two calls share whose texts differ in nothing but spaces, punctuation and case (`tools`, `./tools/`): where the very
    same error came back, that made no difference."""
    try:
        return sha256_of([tool, _letters(json.loads(arguments))])
    except (ValueError, RecursionError):
        # Also what Python reads and JSON does not have, such as NaN.
        return sha256_of([tool, arguments])


def _letters(value: Any) -> Any:
    match value:
        case str():
            return "".join(filter(str.isalnum, value)).casefold() or value
        case list():
            return [_letters(part) for part in value]
        case dict():
            return {key: _letters(part) for key, part in value.items()}
        case _:
            return value


def _says_error(text: str) -> bool:
    try:
        said: JsonObject = json.loads(text)
    except (ValueError, RecursionError):
        return False
    flags = any(said.get(name) for name in ("error", "errors", "isError", "is_error"))
    return flags or said.get("status") in ("error", "failed") or said.get("success") is False or said.get("ok") is False
