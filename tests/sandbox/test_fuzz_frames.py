"""The fuzzer's properties, for a few seconds in every run of the suite."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.fuzz_frames import SEEDS, one_input

FILES = sorted(SEEDS.iterdir())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    own = asyncio.new_event_loop()
    yield own
    own.close()


@pytest.mark.parametrize("seed", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("step", [0, 6, 255])
def test_every_seed_keeps_the_promises(loop: asyncio.AbstractEventLoop, seed: object, step: int) -> None:
    one_input(bytes([step]) + seed.read_bytes()[1:], loop)  # type: ignore[attr-defined]


PIECES = st.sampled_from([file.read_bytes()[1:] for file in FILES]) | st.binary(max_size=40) | st.just(b"\n")


@settings(max_examples=300)
@given(st.integers(0, 255), st.lists(st.tuples(PIECES, st.integers(0, 200), st.integers(0, 200)), max_size=8))
def test_spliced_seeds_keep_the_promises(loop: asyncio.AbstractEventLoop, step: int, parts: list[tuple[bytes, int, int]]) -> None:
    one_input(bytes([step]) + b"".join(piece[start : len(piece) - end] for piece, start, end in parts), loop)
