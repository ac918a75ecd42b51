"""How records are chained: each line carries the hash of the line before it, and its own.

Whoever changes, removes or inserts a line has to compute every later line anew, and whoever noted a hash earlier then sees it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from services.shared.contracts.tools import JsonObject

SCHEMA = "agentflux.sandbox.trajectory/1"
GENESIS = "0" * 64

_MARK = b',"hash":"'
# The mark, 64 hex digits, quote, brace and newline.
_SEAL_BYTES = len(_MARK) + 64 + 3


def sealed(row: JsonObject, previous: str) -> tuple[bytes, str]:
    """`row` as a line that follows the record with the hash `previous`, and its own hash."""
    head = orjson.dumps({"schema": SCHEMA, **row, "prev": previous})[:-1]
    digest = sha256(head).hexdigest()
    return head + _MARK + digest.encode() + b'"}\n', digest


def unsealed(line: bytes) -> JsonObject:
    """The record of a line, newline included.

    Raises:
        ValueError: the line is not as it was written.
    """
    head = line[:-_SEAL_BYTES]
    if line[-_SEAL_BYTES:] != _MARK + sha256(head).hexdigest().encode() + b'"}\n':
        raise ValueError("its hash does not fit its contents")
    row: Any = orjson.loads(line)
    if row.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {row.get('schema')!r}; this version reads {SCHEMA!r}")
    return dict(row)
