"""What counts as a message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox.frames import MAX_DEPTH, MAX_MARKS, BadFrame, FrameTooLong, LineBuffer, parse_frame, strict_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(JSON)
def test_ordinary_json_is_read_as_it_is(value: object) -> None:
    assert strict_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [b"NaN", b'{"a": Infinity}', b"1e400", b'"\\ud800"', b'"\xff"', b"\xef\xbb\xbf{}", b"{} {}", b"", b"'a'", b'"\x00"', b"]["],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


def test_depth_counts_brackets_and_not_text() -> None:
    assert strict_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert strict_json(json.dumps("[{" * 1000 + '\\"' * 10).encode())
    for deep in (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b'{"a":' * 5000 + b"1" + b"}" * 5000):
        with pytest.raises(ValueError, match="deeper than 64"):
            strict_json(deep)


@pytest.mark.parametrize("full", [b"[" + b"1," * (MAX_MARKS - 2) + b"1]", b"[" + b"[]," * (MAX_MARKS // 3 - 1) + b"1]"])
def test_a_text_of_too_many_values_is_refused_before_any_is_made(full: bytes) -> None:
    assert strict_json(full)
    assert strict_json(json.dumps("[,]" * MAX_MARKS).encode())
    with pytest.raises(ValueError, match="more than 200000 brackets and commas"):
        strict_json(full.replace(b"1]", b"1,1,1,1,1]"))


@pytest.mark.parametrize(
    "text",
    [b'\\"' * 500_000, b'"' * 500_001, b"[" * 1_000_000, b"[]" * 500_000, b'"\\' * 300_000, b'["' + b'","' * 500_000 + b'"]'],
)
def test_hostile_text_is_refused_without_being_scanned_again_and_again(text: bytes) -> None:
    # Quadratic work on these would run into the suite's timeout.
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and line.strip())), st.integers(1, 7))
def test_lines_are_the_same_however_the_bytes_arrive(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer = LineBuffer(max_bytes=100)
    found = [line for start in range(0, len(stream), step) for line in buffer.feed(stream[start : start + step])]
    assert found == [line.strip() for line in lines]


def test_a_line_over_the_limit_is_refused_before_its_end() -> None:
    buffer = LineBuffer(max_bytes=10)
    assert buffer.feed(b"0123456789\n01234") == [b"0123456789"]
    with pytest.raises(FrameTooLong, match="larger than 10 bytes"):
        buffer.feed(b"567890")


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":7,"result":NaN}',
        b'{"id": 7, "result": NaN}',
        b'{"result":{"x":NaN},"jsonrpc":"2.0","id":7}',
        b'{"result":NaN,"id":7,"jsonrpc":"2.0"}',
    ],
)
def test_a_bad_frame_says_which_call_it_answers(line: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        parse_frame(line)
    assert caught.value.request_id == 7


@pytest.mark.parametrize("line", [b"hello", b"[1]", b'{"text":"\\"id\\":7', b'{"a":{"id":7},NaN'])
def test_a_bad_frame_without_an_id_answers_nobody(line: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        parse_frame(line)
    assert caught.value.request_id is None
