"""What counts as right where people accept several values."""

from __future__ import annotations

from typing import Any

import pytest

from services.shared.contracts.tools import JsonObject, Tool
from trainer.accepted import is_accepted
from trainer.evaluate import judged
from trainer.rows import Decision

CITY = {"city": ["San Francisco, CA", "SF"], "date": ["", "2023-04-01"]}


@pytest.mark.parametrize(
    ("arguments", "accepted", "right"),
    [
        ({"city": "San Francisco, CA"}, CITY, True),
        ({"city": "SF", "date": "2023-04-01"}, CITY, True),
        ({"city": "san francisco CA", "date": "2023/04/01"}, CITY, True),
        ({"city": "San Jose"}, CITY, False),
        ({"date": "2023-04-01"}, CITY, False),
        ({"city": "SF", "country": "US"}, CITY, False),
        ({"n": 2.0}, {"n": [2]}, True),
        ({"n": "2"}, {"n": [2]}, False),
        ({"n": True}, {"n": [1]}, False),
        ({"n": None}, {"n": [None]}, True),
        ({"tags": ["A", "b"]}, {"tags": [["c"], ["a", "B"]]}, True),
        ({"tags": ["b", "a"]}, {"tags": [["a", "b"]]}, False),
        ({"tags": ["a"]}, {"tags": [["a", "b"]]}, False),
        ({"box": {"wide": 1}}, {"box": [{"wide": [1, 2], "deep": ["", 3]}]}, True),
        ({"box": {"deep": 3}}, {"box": [{"wide": [1, 2], "deep": ["", 3]}]}, False),
        ({"items": [{"name": "tea"}]}, {"items": [[{"name": ["tea"], "size": ["", "L"]}]]}, True),
        ({"items": [{"name": "tea", "size": "S"}]}, {"items": [[{"name": ["tea"], "size": ["", "L"]}]]}, False),
    ],
)
def test_each_argument_is_one_of_its_values(arguments: JsonObject, accepted: dict[str, list[Any]], right: bool) -> None:
    assert is_accepted(arguments, accepted) is right


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"city": "sf"}', (True, True)),
        ('{"city": "SF", "date": 5}', (False, False)),
        ('{"city": "Rome"}', (True, False)),
        ('["city"]', (False, False)),
    ],
)
def test_what_is_written_is_right_when_it_is_accepted_and_satisfies_the_schema(text: str, verdict: tuple[bool, bool]) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "date": {"type": "string"}}}
    decision = Decision("t", "k", 0, [], "find", {"city": "San Francisco, CA"}, accepted=CITY)
    assert judged(text, decision, Tool(name="find", parameters=schema)) == verdict
