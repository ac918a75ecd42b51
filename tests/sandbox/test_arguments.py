"""Whether arguments are what the tool's schema allows."""

from __future__ import annotations

import pytest

from services.sandbox.arguments import ArgumentChecker, ResultChecker
from services.sandbox.errors import ArgumentsRejected, ServerMisbehaved, ToolsetNotReady
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


@pytest.mark.parametrize(
    "text",
    [
        b'{"path": "a", "lines": [' + b"[" * 100 + b"]" * 100 + b"]}",
        b'{"path": NaN}',
        b'{"path": "\\ud800"}',
        b'{"path": 1e400}',
        b"\xff",
    ],
)
def test_what_is_no_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises(ArgumentsRejected, match="not valid JSON"):
        checker().check(text)


def test_numbers_and_strange_keys_come_through_as_they_are() -> None:
    text = '{"n": 9007199254740993, "__proto__": {"a": 1}, "\u202e": 0.1}'.encode()
    assert checker({"type": "object"}).check(text) == {"n": 2**53 + 1, "__proto__": {"a": 1}, "\u202e": 0.1}


RESULT = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}, "required": ["rows"]}


def test_a_result_that_fits_its_schema_passes() -> None:
    ResultChecker("files", "count", RESULT).check(b'{"rows": [1]}')
    ResultChecker("files", "count", {"type": "null"}).check(b"null")


@pytest.mark.parametrize(
    ("structured", "says"),
    [
        (b"", "lacks structuredContent"),
        (b"{}", 'structuredContent: "rows" is a required property'),
        (b'{"rows": [1, "x"]}', "structuredContent.rows.1"),
        (b"[]", "structuredContent"),
    ],
)
def test_a_result_that_breaks_its_schema_is_the_servers_fault(structured: bytes, says: str) -> None:
    with pytest.raises(ServerMisbehaved, match=r"the result of files\.count") as caught:
        ResultChecker("files", "count", RESULT).check(structured)
    assert says in caught.value.message


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://192.0.2.1/schema.json"}])
def test_a_schema_that_cannot_be_used_is_the_toolsets_fault(schema: dict[str, object]) -> None:
    with pytest.raises(ToolsetNotReady, match=r"python -m services\.sandbox\.pin files"):
        checker(schema)
    with pytest.raises(ToolsetNotReady, match=r"the output schema of files\.read"):
        ResultChecker("files", "read", schema)
