"""What a killed run wrote twice or by half is read once and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.timings import TIMINGS, read_curve, read_timings, timed


def test_a_curve_has_each_step_once_and_the_last_try_counts(tmp_path: Path) -> None:
    path = tmp_path / "select.curve.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 9}\n{"step"\n7\n{"step": 2, "loss": 2.5}\n{"step": 3, "lo')
    assert read_curve(path) == [(1, 3.0), (2, 2.5)]


def test_a_step_that_fails_has_taken_its_time_too(tmp_path: Path) -> None:
    def failing() -> None:
        with timed(tmp_path, "train") as spent:
            spent.samples, spent.tokens = 2, 5
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with timed(tmp_path, "train") as spent:
        spent.samples, spent.tokens = 3, 7
    [found] = read_timings(tmp_path / TIMINGS)
    assert (found.step, found.samples, found.tokens) == ("train", 5, 12)
    assert found.peak_rss_bytes > 1 << 20
    assert len((tmp_path / TIMINGS).read_text().splitlines()) == 2
    assert read_timings(tmp_path / "none.jsonl") == []
