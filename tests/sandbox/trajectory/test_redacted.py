"""Shapes contain nothing that a caller wrote, and texts nothing that is a known secret, wherever and however it stands."""

from __future__ import annotations

import base64
import json
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox.trajectory.redacted import MAX_SHAPE_NODES, MAX_TEXT, Scrubber, kept_text, property_names, shape

CANARY = "canary"
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text().map(lambda text: CANARY + text)
VALUES = st.recursive(
    LEAVES, lambda below: st.lists(below) | st.dictionaries(st.text().map(lambda text: CANARY + text), below), max_leaves=60
)


@given(VALUES)
def test_a_shape_has_no_word_of_the_caller(value: Any) -> None:
    shown = json.dumps(shape(value, frozenset({"path"})))
    assert CANARY not in shown
    assert len(shown) < 100 * MAX_SHAPE_NODES


def test_a_shape_of_much_is_cut() -> None:
    assert shape(list(range(1000)), frozenset())[-1] == f"… {1000 - MAX_SHAPE_NODES + 1}"
    assert shape({str(n): n for n in range(1000)}, frozenset())["…"] == 1000 - MAX_SHAPE_NODES + 1


def test_the_names_of_a_schema_are_those_of_its_properties() -> None:
    nested = {
        "properties": {"a": {"items": {"properties": {"b": {}}}}, "c": {"anyOf": [{"properties": {"d": {}}}]}},
        "title": "no",
    }
    assert property_names(nested) == {"a", "b", "c", "d"}


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8), st.binary(), st.binary())
def test_a_secret_is_found_in_all_its_forms(secret: str, before: bytes, after: bytes) -> None:
    secret = f"s3cr3t-{secret}-end"
    scrub = Scrubber((secret.encode(),))
    for text in (f"a{secret}b", json.dumps({"token": secret}), urllib.parse.quote(secret, safe=""), secret.encode().hex()):
        assert "s3cr3t-" not in scrub(text)
        assert secret.encode().hex() not in scrub(text)
    whole = base64.b64encode(before + secret.encode() + after).decode()
    # Four characters are three bytes; those at the edges belong to what stands beside the secret, too.
    inner = whole[(len(before) * 4 + 2) // 3 + 1 : (len(before) + len(secret)) * 4 // 3 - 3]
    assert inner not in scrub(whole)


@pytest.mark.parametrize("secret", [b"", b"a", b"12345", b"   \n"])
def test_a_secret_too_short_to_be_told_from_words_is_left(secret: bytes) -> None:
    assert Scrubber((secret,))("a 12345 b") == "a 12345 b"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert kept_text("x " * MAX_TEXT, Scrubber()) == {"text": "x " * (MAX_TEXT // 2), "cut": True}
    assert "cut" not in kept_text("x", Scrubber())
