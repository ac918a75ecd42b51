"""Whether arguments are among those that people accept: several values may be right, and so may leaving a parameter out.

The rules are those of the Berkeley Function Calling Leaderboard (bfcl_eval/eval_checker/ast_eval/ast_checker.py): text is
compared without capitals, spaces and `,./-_*^`, and with either kind of quotes; "" among the values of a parameter says that it
may be left out; an object within has accepted values for each of its keys, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# For each parameter the values that are right.
Accepted = Mapping[str, Sequence[Any]]


def is_accepted(arguments: Mapping[str, Any], accepted: Accepted) -> bool:
    """Each argument is one of its accepted values, and none is missing that may not be left out."""
    return (
        arguments.keys() <= accepted.keys()
        and all(any(_same(value, one) for one in accepted[key]) for key, value in arguments.items())
        and all("" in values for key, values in accepted.items() if key not in arguments)
    )


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, dict) and isinstance(wanted, dict):
        return is_accepted(value, wanted)
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(value, str) and isinstance(wanted, str):
        return _standard(value) == _standard(wanted)
    # Python takes true for 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _standard(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
