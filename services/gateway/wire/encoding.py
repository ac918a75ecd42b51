"""What leaves the gateway, in JSON."""

from __future__ import annotations

import json

import orjson


def as_json(payload: object) -> bytes:
    """`payload` in UTF-8. Half a surrogate pair, which a client or a model may write as a JSON escape and UTF-8 does not have,
    becomes a question mark."""
    try:
        return orjson.dumps(payload)
    except TypeError:
        # Surrogates, and integers beyond 64 bits.
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
