"""Which JSON Schemas are compiled at all: bounded in size, depth and pattern, and complete in themselves.

A pinned schema was reviewed by a person, but nobody reads what a pattern costs. References to the network or to files are never
followed; recursion is fine, for it ends with the value (64 levels at most, see frames.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from services.shared.contracts.tools import JsonObject

# Levels, references written out; what reads them is recursive.
MAX_DEPTH = 200
# Subschemas, every local reference written out: `anyOf` of `anyOf` of … doubles the work with each level.
MAX_SUBSCHEMAS = 20_000
MAX_PATTERN_BYTES = 4096
# Steps back of the regex engine per match, some 2 ms; patterns without lookaround run in linear time anyway.
BACKTRACK_LIMIT = 20_000
# A compiled pattern may be large because of Unicode classes and counted repetition; this is one megabyte.
COMPILED_PATTERN_BYTES = 1 << 20

_PATTERNS = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=BACKTRACK_LIMIT, size_limit=COMPILED_PATTERN_BYTES, dfa_size_limit=COMPILED_PATTERN_BYTES
)


def compiled(schema: JsonObject) -> Any:
    """A validator for `schema`.

    Raises:
        ValueError: it is no JSON Schema, refers to what is outside of it, or is too costly; says which.
    """
    _Size(schema).measure(schema, 0)
    try:
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)) from None


class _Size:
    """Counts the subschemas of one schema as a validator may have to visit them."""

    def __init__(self, schema: JsonObject) -> None:
        self._schema = schema
        self._targets: dict[str, int] = {}
        self._open: set[str] = set()

    def measure(self, value: Any, depth: int) -> int:
        """The number of objects in `value`, local references followed once per use.

        Raises:
            ValueError: there are too many, or they are nested too deep.
        """
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, list):
            count = sum(self.measure(below, depth + 1) for below in value)
        elif isinstance(value, Mapping):
            self._check_patterns(value)
            count = (
                1 + sum(self.measure(below, depth + 1) for below in value.values()) + self._referenced(value.get("$ref"), depth)
            )
        else:
            return 0
        if count > MAX_SUBSCHEMAS:
            raise ValueError(f"it has more than {MAX_SUBSCHEMAS} subschemas, references written out")
        return count

    def _referenced(self, reference: Any, depth: int) -> int:
        """The size of what a local pointer leads to; nothing inside itself, and nothing for what the compiler will refuse."""
        if not isinstance(reference, str) or not reference.startswith("#/") or reference in self._open:
            return 0
        if reference not in self._targets:
            self._open.add(reference)
            self._targets[reference] = self.measure(_target(self._schema, reference), depth + 1)
            self._open.remove(reference)
        return self._targets[reference]

    def _check_patterns(self, value: Mapping[str, Any]) -> None:
        keyed = value.get("patternProperties")
        for pattern in [value.get("pattern"), *(keyed if isinstance(keyed, Mapping) else ())]:
            if isinstance(pattern, str) and len(pattern.encode("utf-8", "replace")) > MAX_PATTERN_BYTES:
                raise ValueError(f"it has a pattern of more than {MAX_PATTERN_BYTES} bytes")


def _target(schema: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping):
            schema = schema.get(key)
        elif isinstance(schema, list) and key.isascii() and key.isdigit() and int(key) < len(schema):
            schema = schema[int(key)]
        else:
            return None
    return schema
