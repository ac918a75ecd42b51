"""What an agent hears about its function before anybody calls it."""

from __future__ import annotations

import contextlib

import pytest

from services.sandbox.functions.lint import advice, parsed
from services.shared.contracts.tools import JsonObject

SCHEMA: JsonObject = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def said(source: str, schema: JsonObject = SCHEMA) -> str:
    return "\n".join(advice(parsed(source), "work", schema))


def test_a_good_function_gets_no_advice() -> None:
    body = '    """Counts."""\n    with open("/tmp/output/a.txt", "w") as file:\n        return len(text)\n'
    source = f"import json\n\ndef work(text):\n{body}"
    assert said(source) == ""


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("import requests", "requests: there is no network"),
        ("from urllib.request import urlopen", "urllib: there is no network"),
        ("import pandas as pd", "pandas is not part of Python"),
        ("import subprocess", "few processes"),
        ("import ctypes", "ctypes: whoever approves"),
        ("eval('1')", "eval() runs text as code"),
        ("().__class__.__base__.__subclasses__()", "__subclasses__ is reached into"),
        ("open('/etc/passwd')", "/etc/passwd is not there"),
        ("while True:\n        pass", "no break or return"),
        ("global seen", "each call starts anew, so seen"),
        ("input()", "nobody answers input()"),
        ("try:\n        pass\n    except:\n        pass", "a bare `except:`"),
    ],
)
def test_what_will_not_work_is_said_with_its_line(body: str, part: str) -> None:
    found = said(f"def work(text):\n    '''Works.'''\n    {body}\n    return 1\n")
    assert part in found
    assert found.startswith("line ")


def test_the_signature_is_held_against_the_schema() -> None:
    found = said("def work(file, /, other):\n    return 1\n")
    assert "parameters before `/` cannot be filled" in found
    assert "the property 'text', which work does not take" in found
    assert "work takes 'other', which the schema does not describe" in found
    assert "a docstring" in found
    optional = said("def work(text):\n    '''x'''\n    return 1\n", {"type": "object", "properties": {"text": {}}})
    assert "'text' has no default" in optional


@pytest.mark.parametrize("source", ["(" * 60_000, "-" * 60_000 + "1", "f'{" * 5000, "def work(:", "\0", "if 1:\n " * 90])
def test_source_that_is_no_python_is_a_sentence(source: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\0]{5,300}$"):
        parsed(source)


@pytest.mark.parametrize("source", ["x" + ".y" * 30_000, "x = [" * 1 + "[" * 190 + "]" * 190 + "]", "1" + "+1" * 3000])
def test_deep_source_is_read_or_refused_and_breaks_nothing(source: str) -> None:
    with contextlib.suppress(ValueError):
        said(f"def work(text):\n    return 1\n{source}")


def test_advice_is_bounded() -> None:
    body = "".join(f"    import strange{number}\n" for number in range(1000))
    assert len(advice(parsed(f"def work(text):\n{body}"), "work", SCHEMA)) == 20
