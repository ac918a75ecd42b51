"""Intervals, paired comparison and calibration against values from textbooks."""

from __future__ import annotations

import random

import pytest

from trainer.statistics import bins_of, calibration_error, calibration_interval, mcnemar, wilson


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


def test_the_interval_of_the_calibration_narrows_with_the_rows() -> None:
    low, high = calibration_interval([0.9] * 1000, [True] * 500 + [False] * 500)
    assert low < 0.4 < high
    # The interval of a share of a half among 1,000.
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.15)
    few_low, few_high = calibration_interval([0.9] * 10, [True] * 5 + [False] * 5)
    assert few_high - few_low > 5 * (high - low)


def test_the_interval_of_the_calibration_holds_the_true_one() -> None:
    dice = random.Random(5)
    held = below = 0
    for _ in range(100):
        # Sure in four of five bins, too sure by 0.3 in the last: an expected error of 0.06.
        sure = [dice.choice([0.15, 0.35, 0.55, 0.75, 0.95]) for _ in range(400)]
        low, high = calibration_interval(sure, [dice.random() < one - 0.3 * (one > 0.9) for one in sure], draws=200)
        held += low <= 0.06 <= high
        below += high < 0.06
    # It errs on the high side, for bins without an error seem to have one.
    assert held >= 80
    assert below <= 2


def test_the_interval_of_no_votes_is_everything() -> None:
    assert calibration_interval([], []) == (0.0, 1.0)
    assert calibration_interval([0.5, 1.0], [True, True]) == calibration_interval([0.5, 1.0], [True, True])


def test_votes_are_sorted_into_steps_of_confidence() -> None:
    found = bins_of([0.0, 0.05, 0.95, 1.0], [True, False, True, True], bins=10)
    assert [(at, one.count, one.right) for at, one in enumerate(found) if one] == [(0, 2, 0.5), (9, 2, 1.0)]
    assert bins_of([], []) == [None] * 10
    assert calibration_error([], []) == 0.0
