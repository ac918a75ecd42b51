"""What counts as a usable schema and as valid arguments."""

from __future__ import annotations

from typing import Any

import pytest

from services.arguments.validation import grammar_schema, problem
from services.shared.contracts.errors import InvalidToolSchema
from services.shared.contracts.tools import Tool

READ = Tool(
    name="read",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}, "mode": {"enum": ["text", "raw"]}},
        "required": ["path"],
        "additionalProperties": False,
    },
)


def test_arguments_that_satisfy_the_schema_have_no_problem() -> None:
    assert problem(READ, '{"path":"a","lines":3,"mode":"raw"}') is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", '"path" is a required property'),
        ('{"path":1}', "path: 1 is not of type"),
        ('{"path":"a","lines":true}', "lines: true is not of type"),
        ('{"path":"a","mode":"x"}', "mode:"),
        ('{"path":"a","force":1}', "force"),
        ('{"path":"a"', "not valid JSON"),
        ('{"path":NaN}', "NaN is not JSON"),
        ('["a"]', "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_problem_names_the_place_and_what_is_wrong(text: str, says: str) -> None:
    assert says in (problem(READ, text) or "")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"type": "array"}, "always an object"),
        ({"type": "object", "properties": {"a": {"type": "nonsense"}}}, "not a usable JSON Schema"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "/nowhere"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}}, "Retrieval is disabled"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "regex"),
    ],
)
def test_an_unusable_schema_is_named_before_anything_is_generated(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidToolSchema, match="'broken'") as caught:
        problem(Tool(name="broken", parameters=parameters), "{}")
    assert says in caught.value.message


def test_a_hostile_pattern_ends_quickly() -> None:
    hostile = Tool(name="t", parameters={"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    assert problem(hostile, '{"a":"' + "a" * 5000 + '!"}')


def test_the_grammar_gets_the_schema_without_annotations_but_with_every_property() -> None:
    tool = Tool(
        name="t",
        parameters={
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Arguments",
            "type": "object",
            "properties": {"title": {"type": "string", "title": "Title"}, "kind": {"enum": [{"title": "kept"}]}},
        },
    )
    assert grammar_schema(tool) == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "kind": {"enum": [{"title": "kept"}]}},
    }
