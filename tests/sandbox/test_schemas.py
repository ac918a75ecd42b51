"""Which schemas are compiled at all, and what a value that attacks them costs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from services.sandbox.schemas import compiled

TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "below": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "$defs": {"node": {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}},
}


def doubled(levels: int) -> dict[str, Any]:
    """`anyOf` twice the next level, which is `anyOf` twice the next: 2^levels branches in a few lines."""
    steps = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{levels}": {"type": "string"}}}


def chain(levels: int) -> dict[str, Any]:
    steps = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{levels}": {}}}


@pytest.mark.parametrize(
    "schema", [{}, TREE, {"$ref": "#"}, doubled(8), chain(20), {"$defs": {"a/b": {}}, "$ref": "#/$defs/a~1b"}]
)
def test_what_people_write_is_compiled(schema: dict[str, Any]) -> None:
    assert compiled(schema).is_valid({"name": "x"}) is (schema != doubled(8))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"$schema": "http://192.0.2.1/dialect"}, "meta-schema"),
        ({"$ref": "http://192.0.2.1/schema.json"}, "cannot fetch"),
        ({"properties": {"a": {"$ref": "http://192.0.2.1/schema.json"}}}, "cannot fetch"),
        ({"$dynamicRef": "http://192.0.2.1/schema.json"}, "retriev"),
        ({"$ref": "file:///etc/passwd"}, "cannot fetch"),
        ({"$ref": "#/$defs/nothing"}, "nothing"),
        ({"$ref": "#/allOf/7", "allOf": [{}]}, "allOf/7"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "a" * 5000}, "more than 4096 bytes"),
        ({"patternProperties": {"a" * 5000: {}}}, "more than 4096 bytes"),
        ({"pattern": r"(\w{1000}){1000}"}, "regex"),
        (doubled(30), "more than 20000 subschemas"),
        ({"enum": [{}] * 30_000}, "more than 20000 subschemas"),
        (chain(300), "nested deeper"),
    ],
)  # fmt: skip
def test_what_is_too_costly_or_incomplete_is_refused(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        compiled(schema)


def test_a_pattern_that_explodes_is_given_up() -> None:
    validator = compiled({"pattern": r"^(?:(a)\1*)+$"})
    assert validator.is_valid("aaa")
    assert not validator.is_valid("a" * 60 + "!")
    assert not compiled({"pattern": "^(a+)+$"}).is_valid("a" * 100_000 + "!")
