"""How much a call may take, and how a result is cut."""

from __future__ import annotations

from services.sandbox.limits import Block, Limits, cut, output_cap, tightened, wall_time

LIMITS = Limits(wall_s=30, output_bytes=1000)


def test_a_call_without_a_deadline_gets_the_toolsets() -> None:
    assert wall_time(LIMITS, asked_s=None, remaining_s=None) == 30


def test_the_shortest_of_all_deadlines_counts() -> None:
    assert wall_time(LIMITS, asked_s=5, remaining_s=60) == 5
    assert wall_time(LIMITS, asked_s=500, remaining_s=None) == 30
    assert wall_time(LIMITS, asked_s=None, remaining_s=2) == 1.95


def test_a_deadline_in_the_past_leaves_a_moment_to_say_so() -> None:
    assert wall_time(LIMITS, asked_s=None, remaining_s=-1) == 0.001


def test_no_toolset_goes_above_what_the_operator_allows() -> None:
    bounded = tightened(Limits(wall_s=900, processes=8), Limits(wall_s=60, processes=100))
    assert (bounded.wall_s, bounded.processes) == (60, 8)


def test_the_output_cap_is_asked_for_but_never_raised() -> None:
    assert [output_cap(LIMITS, asked) for asked in (0, 10, 5000)] == [1000, 10, 1000]


def test_a_result_that_fits_is_left_alone() -> None:
    blocks = [Block(text="abc"), Block(json=b'{"type":"image"}')]
    assert cut(blocks, b"{}", 100) == (blocks, b"{}", False)


def test_text_is_cut_between_characters() -> None:
    assert cut([Block(text="aää")], b"", 4) == ([Block(text="aä")], b"", True)


def test_what_is_no_text_is_kept_whole_or_dropped() -> None:
    assert cut([Block(text="abc"), Block(json=b'{"type":"image"}')], b"", 10) == ([Block(text="abc")], b"", True)
    assert cut([Block(text="abc")], b'{"long": "structure"}', 10) == ([Block(text="abc")], b"", True)


def test_nothing_fits_into_no_room() -> None:
    assert cut([Block(text="ä")], b"", 1) == ([Block(text="")], b"", True)
