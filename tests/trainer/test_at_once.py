"""Steps side by side: the same results as in turn, and an end to all of them with the first that fails."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from services.shared.contracts.adapters import WEIGHTS_FILE
from tests.trainer.conftest import tiny_base
from tests.trainer.test_training import PROFILE
from trainer.at_once import at_once
from trainer.metrics import TrainMetrics
from trainer.progress import Bar, Tick, silent
from trainer.rows import TrainRow
from trainer.training import Job, train


@pytest.fixture
def threads() -> Iterator[int]:
    """Two threads for torch, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def trained(base: Any, rows: list[TrainRow], out: Path, alias: str, bar: Bar) -> str:
    """The hash of an adapter that is drawn, trained, and gone on with from a checkpoint."""
    for epochs in (1, PROFILE.epochs):
        with bar(alias) as tick:
            profile = replace(PROFILE, epochs=epochs, checkpoint_steps=1)
            job = Job(f"{alias}{epochs}", "selector", None, rows)
            folder = train(base, job, profile, out, seed=len(alias), tick=lambda step, steps, *_: tick(step, steps))
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()


def test_adapters_trained_side_by_side_over_one_base_are_those_trained_in_turn(
    rows: list[TrainRow], tmp_path: Path, threads: int
) -> None:
    base, names = tiny_base(), ("a", "bb", "ccc", "dddd")
    at_a_time, most = [0], 0

    @contextmanager
    def counted(name: str) -> Iterator[Tick]:
        nonlocal most
        at_a_time[0] += 1
        most = max(most, at_a_time[0])
        yield lambda done, total: None
        at_a_time[0] -= 1

    together = at_once([partial(trained, base, rows, tmp_path / "together", name) for name in names], counted, 2)
    assert (most, torch.get_num_threads()) == (2, threads)
    torch.set_num_threads(1)
    assert together == [trained(tiny_base(), rows, tmp_path / "in_turn", name, silent) for name in names]
    assert len(set(together)) == len(names)


def endless(begun: threading.Event, bar: Bar) -> None:
    with bar("endless") as tick:
        while True:
            tick(1, 2)
            begun.set()


def test_the_first_error_ends_all_and_is_the_one_that_is_told(threads: int) -> None:
    begun, never = threading.Event(), []

    def failing(bar: Bar) -> None:
        assert begun.wait(10)
        raise ValueError("no such row")

    steps = [partial(endless, begun), failing, never.append]
    with pytest.raises(ValueError, match="no such row"):
        at_once(steps, silent, 2)
    assert never == []
    assert not [one for one in threading.enumerate() if one.name.startswith("at-once")]


@pytest.mark.parametrize("asleep", [False, True], ids=["in time", "too late to wake the thread that waits"])
def test_a_signal_ends_them(threads: int, asleep: bool) -> None:
    begun, masked = threading.Event(), {signal.SIGTERM} if asleep else set()

    def asked_to_end(*_: object) -> None:
        raise SystemExit(143)

    def kill() -> None:
        # A signal that another thread gets wakes the first one as little as one that it gets before it sleeps.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, masked)
        if begun.wait(10):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, asked_to_end)
    timer = threading.Thread(target=kill)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, masked)
    try:
        timer.start()
        with pytest.raises(SystemExit, match="143"):
            at_once([partial(endless, begun)], silent, 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)
        timer.join()


def test_of_two_steps_at_once_the_metrics_tell_how_long_the_slower_one_takes() -> None:
    metrics = TrainMetrics("files")

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"agentflux_train_{name}", labels) or 0.0

    bar = metrics.watched(silent)
    with bar("train select") as fast:
        with bar("train joint") as slow:
            fast(0, 100)
            fast(90, 100)
            assert math.isnan(value("step_done_ratio"))
            slow(0, 100)
            slow(1, 100)
            assert value("step_done_ratio") == 0.01
            assert value("step_remaining_seconds") > 0
        # One of them has ended, the step has not.
        assert value("step", toolset="files", step="train") == 1
        assert value("step_done_ratio") == 0.9
    assert value("step", toolset="files", step="train") == 0
