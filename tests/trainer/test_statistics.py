"""Intervals, paired comparison and calibration against values from textbooks."""

from __future__ import annotations

import pytest

from trainer.statistics import bins_of, calibration_error, mcnemar, wilson


def test_the_interval_of_eight_in_fifty() -> None:
    assert wilson(8, 50) == pytest.approx((0.0834, 0.2851), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)


def test_only_rows_that_differ_count() -> None:
    before, after = [False] * 6 + [True] * 94, [True] * 100
    assert mcnemar(before, after) == pytest.approx(2 / 2**6)
    assert mcnemar([True, False], [True, False]) == 1.0


def test_thousands_of_rows_that_differ_count_too() -> None:
    assert mcnemar([False] * 5000, [True] * 5000) == 0.0
    assert mcnemar([True, False] * 2000, [False, True] * 2000) == 1.0


def test_gains_and_losses_of_equal_number_prove_nothing() -> None:
    assert mcnemar([True, False], [False, True]) == 1.0


def test_calibration_is_the_gap_between_confidence_and_success() -> None:
    assert calibration_error([0.8] * 10, [True] * 8 + [False] * 2) == pytest.approx(0.0)
    assert calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)


def test_votes_are_sorted_into_steps_of_confidence() -> None:
    found = bins_of([0.0, 0.05, 0.95, 1.0], [True, False, True, True], bins=10)
    assert [(at, one.count, one.right) for at, one in enumerate(found) if one] == [(0, 2, 0.5), (9, 2, 1.0)]
    assert bins_of([], []) == [None] * 10
    assert calibration_error([], []) == 0.0
