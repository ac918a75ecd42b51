"""Whether arguments are what the tool's schema allows."""

from __future__ import annotations

import pytest

from services.sandbox.arguments import ArgumentChecker
from services.sandbox.errors import ArgumentsRejected, ToolsetNotReady
from services.shared.contracts.tools import Tool

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "required": ["path"],
    "additionalProperties": False,
}


def checker(schema: dict[str, object] = SCHEMA) -> ArgumentChecker:
    return ArgumentChecker("files", Tool(name="read", parameters=schema))


def test_valid_arguments_come_back_as_an_object() -> None:
    assert checker().check(b'{"path": "a", "lines": [1]}') == {"path": "a", "lines": [1]}


def test_empty_text_means_no_arguments() -> None:
    assert checker({"type": "object"}).check(b" ") == {}


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        (b"{", "arguments_json", "not valid JSON"),
        (b"[]", "arguments_json", "must be a JSON object, not an array"),
        (b"true", "arguments_json", "not a boolean"),
        (b"{}", "arguments_json", '"path" is a required property'),
        (b'{"path": 1}', "arguments_json.path", 'is not of type "string"'),
        (b'{"path": "a", "lines": [1, "2"]}', "arguments_json.lines.1", 'is not of type "integer"'),
        (b'{"path": "a", "extra": 1}', "arguments_json", "'extra' was unexpected"),
    ],
)
def test_each_violation_names_its_field(text: bytes, field: str, says: str) -> None:
    with pytest.raises(ArgumentsRejected, match=r"the arguments of files\.read are not valid") as caught:
        checker().check(text)
    [(where, what)] = caught.value.violations
    assert where == field
    assert says in what


def test_a_long_list_of_violations_is_cut() -> None:
    with pytest.raises(ArgumentsRejected) as caught:
        checker().check(b'{"path": "a", "lines": [' + b",".join([b'"x"'] * 50) + b"]}")
    assert len(caught.value.violations) == 8


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://192.0.2.1/schema.json"}])
def test_a_schema_that_cannot_be_used_is_the_toolsets_fault(schema: dict[str, object]) -> None:
    with pytest.raises(ToolsetNotReady, match=r"python -m services\.sandbox\.pin files"):
        checker(schema)
