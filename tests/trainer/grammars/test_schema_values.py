"""Arguments out of a schema alone: each construct gives values that satisfy it, and says them."""

from __future__ import annotations

import re

import pytest

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.grammars.mechanics import Dice, World
from trainer.grammars.schema_values import Draft, Said, Unspeakable, human, singular
from trainer.grammars.schema_words import TRAIN

CONSTRUCTS: dict[str, JsonObject] = {
    "text": {"type": "string"},
    "number": {"type": "number", "exclusiveMinimum": 3, "maximum": 4},
    "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "negative": {"type": "integer", "maximum": -5},
    "between": {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
    "dozens": {"type": "integer", "multipleOf": 12, "minimum": 100},
    "quarters": {"type": "number", "multipleOf": 0.25, "maximum": 3},
    "bounded": {"type": "integer", "minimum": 2, "maximum": 2},
    "nullable": {"type": ["null", "integer"]},
    "alternatives": {"oneOf": [{"type": "null"}, {"type": "boolean"}]},
    "all_of": {"allOf": [{"type": "string"}, {"enum": ["a", "b"]}]},
    "reference": {"$ref": "#/$defs/kind"},
    "constant": {"const": "v1"},
    "date": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
    "serial": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}x$"},
    "country": {"type": "string", "minLength": 2, "maxLength": 2, "pattern": "^[A-Z]+$"},
    "essay": {"type": "string", "minLength": 60},
    "initial": {"type": "string", "maxLength": 1, "minLength": 1},
    "token": {"type": "string", "format": "uuid", "pattern": "^[0-9a-f-]{36}$"},
    "mail": {"type": "string", "format": "email"},
    "home_page": {"type": "string", "format": "uri"},
    "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
    "nested": {"type": "object", "properties": {"deep": {"type": "integer"}}, "required": ["deep"]},
    "people": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
}


def draft(dice: int, **properties: JsonObject) -> Draft:
    schema = {"properties": properties, "required": list(properties), "$defs": {"kind": {"enum": ["in_progress", "done"]}}}
    world = World({"docs/a.txt": ""})
    return Draft(Dice(dice), TRAIN.values, world, Tool(name="do_it", parameters={"type": "object", **schema}))


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_values_satisfy_the_schema_and_are_said(construct: str) -> None:
    for seed in range(20):
        one = draft(seed, **{construct: CONSTRUCTS[construct]})
        arguments = one.arguments()
        assert compiled_schema(one.tool).is_valid(arguments), arguments
        values = [value for part in one.said if part for value in part.values]
        assert all(str(value) in str(arguments) for value in values)
        assert bool(values) == (construct not in ("constant", "map"))


@pytest.mark.parametrize("pattern", ["^\\p{Lu}$", "^a{200}$", "^(?!.).$"])
def test_a_text_that_nobody_can_say_is_an_error_and_no_hang(pattern: str) -> None:
    with pytest.raises(Unspeakable):
        draft(0, odd={"type": "string", "pattern": pattern}).arguments()


ODD: list[JsonObject] = [
    {"type": "object", "properties": {"a": True}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": True}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"anyOf": [True, {"type": "integer"}]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "string", "examples": 3, "description": 7}}, "required": ["a"]},
    {"type": "object", "properties": None, "required": None},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}}},
    {"allOf": [{"properties": {"a": {"type": "integer"}}}], "type": "object", "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": [["x"], ["y"]]}}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"const": {"x": 1}}}}, "required": ["a"]},
    {"type": "string"},
]


@pytest.mark.parametrize("parameters", ODD)
def test_an_odd_schema_is_spoken_or_refused(parameters: JsonObject) -> None:
    one = Draft(Dice(0), TRAIN.values, World({}), Tool(name="t", parameters=parameters))
    try:
        assert set(one.arguments()) == set(parameters.get("required") or (["b"] if "$ref" in parameters else []))
    except Unspeakable:
        assert ODD.index(parameters) > 6


def test_labels_are_those_a_person_would_use() -> None:
    one = draft(0, nested=CONSTRUCTS["nested"], entityType=CONSTRUCTS["text"], tags={**CONSTRUCTS["items"], "maxItems": 3})
    one.arguments()
    assert [part.label for part in one.said if part] == ["nested deep", "entity type", "tags"]


def test_a_default_is_not_repeated() -> None:
    one = draft(3, mode={"enum": ["a", "b"], "default": "a"}, dry={"type": "boolean", "default": True})
    assert one.arguments() == {"mode": "b", "dry": False}
    assert one.said == [Said("mode", ("b",)), Said("dry", (False,))]


def test_what_was_named_before_is_taken_and_nothing_beyond_it() -> None:
    one = draft(5, people=CONSTRUCTS["people"])
    one.known, one.subject = ["Rex"], frozenset({"name"})
    assert one.arguments() == {"people": [{"name": "Rex"}]}
    assert one.taken == 1


def test_paths_are_those_of_the_world() -> None:
    assert draft(0, file_path={"type": "string"}).arguments() == {"file_path": "docs/a.txt"}


@pytest.mark.parametrize(
    ("name", "description", "pattern"),
    [
        ("timezone", "", r"UTC|\w+/\w+"),
        ("expression", "What to compute", r"[\d +*/()-]+"),
        ("range", "", r"[A-H]\d+:[A-H]\d+"),
        ("query", "SELECT SQL query to execute", "SELECT \\* FROM .+"),
        ("query", "The SQL to run: INSERT, UPDATE or DELETE", "INSERT INTO .+"),
        ("query", "Who to look for", r"\w+"),
        ("file", "The absolute path", "/workspace/docs/a.txt"),
        ("version", "", r"\d\.\d\.\d"),
    ],
)
def test_values_are_of_the_kind_that_label_and_description_speak_of(name: str, description: str, pattern: str) -> None:
    for seed in range(20):
        said = draft(seed, **{name: {"type": "string", "description": description}}).arguments()[name]
        assert re.fullmatch(pattern, said), said


def test_examples_of_the_schema_are_said_now_and_then() -> None:
    about = "IANA name (e.g., 'America/Lima'). Use `Etc/UTC` for none."
    schemas = [{"type": "string", "examples": ["Asia/Seoul", 7]}, {"type": "string", "description": about}]
    for schema, example in zip(schemas, ("Asia/Seoul", "America/Lima"), strict=True):
        said = [draft(seed, zone=schema).arguments()["zone"] for seed in range(60)]
        assert 10 < said.count(example) < 40
        assert all(isinstance(value, str) and value != "Etc/UTC" for value in said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("entityType", "entity type"),
        ("user_id", "user id"),
        ("HTTPServer", "http server"),
        ("sort-by", "sort by"),
        ("x2y", "x2y"),
    ],
)
def test_identifiers_are_said_as_words(name: str, said: str) -> None:
    assert human(name) == said


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("entities", "entity"),
        ("boxes", "box"),
        ("sizes", "size"),
        ("status", "status"),
        ("address", "address"),
        ("notes", "note"),
    ],
)
def test_plurals_lose_their_ending(many: str, one: str) -> None:
    assert singular(many) == one
