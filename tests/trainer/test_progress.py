"""How far a training is, for those who read a log instead of a terminal: containers, jobs, cron."""

from __future__ import annotations

import io

import pytest

from trainer import progress as shown


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_twice_a_minute_with_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with shown.progress(clock) as bar, bar("training select") as tick:
        for step in range(1, 121):
            clock.now += 1
            tick(step, 120)

    assert capsys.readouterr().err.splitlines() == [
        "training select: begins",
        "training select: 30 of 120, 0:00:30 taken, 0:01:30 left",
        "training select: 60 of 120, 0:01:00 taken, 0:01:00 left",
        "training select: 90 of 120, 0:01:30 taken, 0:00:30 left",
        "training select: done in 0:02:00",
    ]


def test_what_was_done_before_a_kill_does_not_count_as_done_now(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with shown.progress(clock) as bar, bar("training select") as tick:
        clock.now += 40
        tick(101, 120)
        clock.now += 40
        tick(111, 120)

    assert capsys.readouterr().err.splitlines()[1:3] == [
        "training select: 101 of 120, 0:00:40 taken",
        "training select: 111 of 120, 0:01:20 taken, 0:00:36 left",
    ]


def test_a_step_that_failed_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="full"), shown.progress(Clock()) as bar, bar("dataset"):
        raise OSError("disk full")

    assert capsys.readouterr().err.splitlines() == ["dataset: begins"]


def test_two_steps_at_once_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with shown.progress(clock) as bar, bar("select") as one, bar("joint") as other:
        one(1, 9)
        other(3, 9)
        clock.now += 40
        one(3, 9)
        other(4, 9)

    lines = capsys.readouterr().err.splitlines()
    assert "select: 3 of 9, 0:00:40 taken, 0:02:00 left" in lines
    assert "joint: 4 of 9, 0:00:40 taken, 0:03:20 left" in lines


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown.progress() as bar, bar("training select") as tick:
        tick(120, 120)

    written = capsys.readouterr().err
    assert "━" in written
    assert "120/120" in written
    assert "done in" not in written


def test_steps_at_once_do_not_write_into_each_others_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    monkeypatch.setattr("sys.stderr", Log())
    with shown.progress(Clock()) as bar, bar("select"):
        pass
    assert written == ["select: begins\n", "select: done in 0:00:00\n"]
