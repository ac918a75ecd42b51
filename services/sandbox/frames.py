"""What counts as a message: one line of strict JSON, not too long and not too deep. Decides nothing about its meaning."""

from __future__ import annotations

import re
from typing import Any

import orjson

# Deep enough for any schema or result that people write, and far below what recursive code downstream survives.
MAX_DEPTH = 64
# Brackets and commas. Each value costs a multiple of its bytes in memory and in time, during which nobody else is served.
MAX_MARKS = 200_000

# A string, or what looks like one and never ends: without the second case, hostile text would be scanned again per quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_MARKS = bytes(set(range(256)) - set(b"[]{},"))
# The id of a message that cannot be parsed: servers write it first or last.
_ID_FIRST = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*[,}]')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class BadFrame(ValueError):
    """Bytes that are no message; `request_id` is that of the call which they seem to answer."""

    def __init__(self, why: str, request_id: int | None = None) -> None:
        super().__init__(why)
        self.request_id = request_id


class FrameTooLong(ValueError):
    """A line beyond the limit. There is no good place to continue reading."""


class LineBuffer:
    """Cuts a stream of bytes into lines of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their newlines and without empty ones.

        Raises:
            FrameTooLong: a line grew beyond the limit, whether or not its end has come.
        """
        *complete, rest = chunk.split(b"\n")
        lines = []
        for piece in complete:
            self._add(piece)
            lines.append(b"".join(self._parts).strip())
            self._parts, self._size = [], 0
        self._add(rest)
        return [line for line in lines if line]

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise FrameTooLong(f"a message is larger than {self._max_bytes} bytes")
        if piece:
            self._parts.append(piece)


def strict_json(text: bytes) -> Any:
    """The value of a JSON text: UTF-8, no NaN, no lone surrogates, at most `MAX_DEPTH` levels deep and with `MAX_MARKS` marks.

    Raises:
        ValueError: says what is wrong with it.
    """
    if _too_deep(_marks(text).translate(None, b",")):
        raise ValueError(f"JSON is nested deeper than {MAX_DEPTH} levels")
    return orjson.loads(text)


def parse_frame(line: bytes) -> dict[str, Any]:
    """One line as a JSON object.

    Raises:
        BadFrame: with the id of the call it answers, where that can be told.
    """
    try:
        value = strict_json(line)
    except ValueError as error:
        found = _ID_FIRST.search(line[:256]) or _ID_LAST.search(line[-256:])
        raise BadFrame(str(error), int(found[1]) if found else None) from None
    if not isinstance(value, dict):
        raise BadFrame("a message must be a JSON object")
    return value


def _marks(text: bytes) -> bytes:
    # No more than two strings stand between two marks. Where there are more, they need not be taken out one by one.
    if text.count(b'"') - text.count(b'\\"') <= 4 * MAX_MARKS + 2:
        marks = _STRING.sub(b"", text).translate(None, _NOT_MARKS)
        if len(marks) <= MAX_MARKS:
            return marks
    raise ValueError(f"JSON has more than {MAX_MARKS} brackets and commas outside of its texts")


def _too_deep(brackets: bytes) -> bool:
    # Each pass removes the innermost level, at the speed of bytes.replace; a parser would have recursed by now.
    for _ in range(MAX_DEPTH):
        shorter = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(shorter) == len(brackets):
            return False  # Nothing is left, or nothing that closes: the parser will say so.
        brackets = shorter
    return bool(brackets)
