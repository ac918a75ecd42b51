from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.engine.vllm_plugin.rows import Group, group_rows

runs = st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 40)), max_size=12)


def rows_of(group: Group) -> list[int]:
    return list(range(group.rows.start, group.rows.stop)) if isinstance(group.rows, slice) else group.rows.tolist()


@given(runs)
def test_every_row_with_an_adapter_is_in_one_group_of_that_adapter_and_no_other_row_is_in_any(drawn):
    slots = [slot for slot, length in drawn for _ in range(length)]
    grouped = [(row, group.slot) for group in group_rows(slots) for row in rows_of(group)]
    assert sorted(grouped) == [(row, slot) for row, slot in enumerate(slots) if slot >= 0]


def test_nothing_is_no_group():
    assert group_rows([]) == []
    assert group_rows([-1, -1]) == []


def test_neighbours_are_used_where_they_lie():
    assert group_rows([0, 0, -1, 1]) == [Group(0, slice(0, 2)), Group(1, slice(3, 4))]


def test_single_tokens_of_one_adapter_become_one_product():
    zeros, ones = group_rows([0, 1, 0, 1, 0])
    assert (rows_of(zeros), rows_of(ones)) == ([0, 2, 4], [1, 3])


def test_long_runs_are_not_copied_together():
    slots = [0] * 50 + [1] * 50 + [0] * 50
    assert group_rows(slots) == [Group(0, slice(0, 50)), Group(1, slice(50, 100)), Group(0, slice(100, 150))]
