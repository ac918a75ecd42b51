"""One training, whatever happens to it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.shared.contracts.adapters import WEIGHTS_FILE
from tests.trainer.conftest import tiny_base
from trainer.attention import WHOLE
from trainer.profiles import PROFILES
from trainer.rows import TrainRow
from trainer.training import Job, TrainingFailed, batches, load_base, train, wearing

PROFILE = replace(PROFILES["small"], rank=4, epochs=6, batch_rows=2, checkpoint_steps=4, learning_rate=3e-2)


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()


def job(rows: list[TrainRow]) -> Job:
    return Job("select", "selector", None, rows)


class Killed(Exception):
    pass


def test_the_base_is_loaded_frozen_and_with_the_attention_of_its_device(tmp_path: Path) -> None:
    tiny_base().save_pretrained(tmp_path)
    base = load_base(tmp_path)
    assert base.config._attn_implementation == WHOLE
    assert {(param.dtype, param.requires_grad) for param in base.parameters()} == {(torch.bfloat16, False)}


def test_every_epoch_has_each_row_once(rows: list[TrainRow]) -> None:
    plan = batches(rows, PROFILE, seed=0)
    assert sorted(index for batch in plan for index in batch) == sorted([*range(len(rows))] * PROFILE.epochs)
    assert max(map(len, plan)) <= PROFILE.batch_rows


def test_an_adapter_learns_its_rows_and_leaves_the_base_alone(base: Any, rows: list[TrainRow], tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    losses: list[float] = []
    folder = train(base, job(rows), PROFILE, tmp_path, seed=0, tick=lambda step, steps, loss, batch: losses.append(loss))
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert wearing(base, folder) is not base
    assert base.state_dict().keys() == before.keys()


def test_a_run_stopped_anywhere_ends_in_the_same_bytes(rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))
    for stop in (1, 4, 6, 11):

        def tick(step: int, steps: int, loss: float, batch: object, stop: int = stop) -> None:
            if step == stop:
                raise Killed

        out = tmp_path / str(stop)
        with pytest.raises(Killed):
            train(tiny_base(), job(rows), PROFILE, out, seed=0, tick=tick)
        assert sha256(train(tiny_base(), job(rows), PROFILE, out, seed=0)) == whole


def test_an_optimizer_of_8_bits_learns_too_and_may_be_stopped(rows: list[TrainRow], tmp_path: Path) -> None:
    # Tensors of fewer than 4,096 numbers keep 32 bits, so the rank is one that no such model needs.
    profile = replace(PROFILE, rank=128, alpha=128, eight_bit=True, learning_rate=3e-3)
    losses: list[float] = []

    def tick(step: int, steps: int, loss: float, batch: object) -> None:
        losses.append(loss)
        if len(losses) == 6:
            raise Killed

    with pytest.raises(Killed):
        train(tiny_base(), job(rows), profile, tmp_path / "halted", seed=0, tick=tick)
    (newest,) = (tmp_path / "halted" / "select.checkpoints").glob("*.pt")
    remembered = torch.load(newest, weights_only=True)["optimizer"]["state"].values()
    quantized = [one["__bnb_optimizer_quant_state__"]["state1"].dtype for one in remembered]
    assert torch.uint8 in quantized
    halted = sha256(train(tiny_base(), job(rows), profile, tmp_path / "halted", seed=0, tick=tick))
    assert losses[-1] < 0.8 * losses[0]
    assert halted == sha256(train(tiny_base(), job(rows), profile, tmp_path / "whole", seed=0))
    assert halted != sha256(train(tiny_base(), job(rows), replace(profile, eight_bit=False), tmp_path / "exact", seed=0))


def test_where_no_optimizer_of_8_bits_is_installed_it_has_32(
    base: Any, rows: list[TrainRow], tmp_path: Path, monkeypatch: Any
) -> None:
    exact = sha256(train(base, job(rows), PROFILE, tmp_path / "exact", seed=0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert exact == sha256(train(base, job(rows), replace(PROFILE, eight_bit=True), tmp_path / "other", seed=0))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))

    def tick(step: int, steps: int, loss: float, batch: object) -> None:
        if step == 9:
            raise Killed

    with pytest.raises(Killed):
        train(tiny_base(), job(rows), PROFILE, tmp_path / "cut", seed=0, tick=tick)
    newest = max((tmp_path / "cut" / "select.checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    steps: list[int] = []
    folder = train(
        tiny_base(), job(rows), PROFILE, tmp_path / "cut", seed=0, tick=lambda step, total, loss, batch: steps.append(step)
    )
    assert steps[0] == 5
    assert sha256(folder) == whole


def test_checkpoints_of_other_rows_are_not_gone_on_from(rows: list[TrainRow], tmp_path: Path) -> None:
    def tick(step: int, steps: int, loss: float, batch: object) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(tiny_base(), job(rows), PROFILE, tmp_path, seed=0, tick=tick)
    steps: list[int] = []
    train(tiny_base(), job(rows[1:]), PROFILE, tmp_path, seed=0, tick=lambda step, total, loss, batch: steps.append(step))
    assert steps[0] == 1


def test_training_goes_on_from_another_adapter(base: Any, rows: list[TrainRow], tmp_path: Path) -> None:
    parent = train(base, job(rows), PROFILE, tmp_path / "parent", seed=0)
    still = replace(PROFILE, learning_rate=0.0)
    assert sha256(train(base, job(rows), still, tmp_path / "still", seed=1, begin=parent)) == sha256(parent)
    losses: dict[str, list[float]] = {"fresh": [], "on": []}
    train(
        base, job(rows), PROFILE, tmp_path / "fresh", seed=1, tick=lambda step, steps, loss, batch: losses["fresh"].append(loss)
    )
    train(
        base,
        job(rows),
        PROFILE,
        tmp_path / "on",
        seed=1,
        begin=parent,
        tick=lambda step, steps, loss, batch: losses["on"].append(loss),
    )
    assert losses["on"][0] < 0.8 * losses["fresh"][0]


def test_a_run_that_goes_on_from_an_adapter_may_be_stopped_too(base: Any, rows: list[TrainRow], tmp_path: Path) -> None:
    parent, other = (train(base, job(rows), PROFILE, tmp_path / f"parent{seed}", seed=seed) for seed in (0, 1))
    whole = sha256(train(base, job(rows), PROFILE, tmp_path / "whole", seed=0, begin=parent))

    def tick(step: int, steps: int, loss: float, batch: object) -> None:
        if step == 6:
            raise Killed

    for name in ("same", "other"):
        with pytest.raises(Killed):
            train(base, job(rows), PROFILE, tmp_path / name, seed=0, begin=parent, tick=tick)
    assert sha256(train(base, job(rows), PROFILE, tmp_path / "same", seed=0, begin=parent)) == whole
    # A checkpoint belongs to the adapter that it began from.
    expected = sha256(train(base, job(rows), PROFILE, tmp_path / "expected", seed=0, begin=other))
    assert sha256(train(base, job(rows), PROFILE, tmp_path / "other", seed=0, begin=other)) == expected != whole


@pytest.mark.parametrize("change", [{"rank": 8}, {"alpha": 8}, {"rslora": True}])
def test_an_adapter_of_another_shape_is_not_gone_on_from(
    base: Any, rows: list[TrainRow], change: dict[str, Any], tmp_path: Path
) -> None:
    parent = train(base, job(rows), PROFILE, tmp_path / "parent", seed=0)
    with pytest.raises(LookupError, match=r"cannot go on from there: \w+ is \S+ in select and \S+ in the profile"):
        train(base, job(rows), replace(PROFILE, **change), tmp_path, seed=0, begin=parent)


def test_a_loss_that_is_no_number_names_step_and_rows(base: Any, rows: list[TrainRow], tmp_path: Path) -> None:
    with torch.no_grad():
        base.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match=r"select: the loss is nan at step 1, in rows .*/[01]"):
        train(base, job(rows), PROFILE, tmp_path, seed=0)
    assert not (tmp_path / "select").exists()


KILLED = """
import os, sys
from pathlib import Path
from tests.fakes import toy_renderer
from tests.trainer.conftest import selection_rows, tiny_base
from tests.trainer.test_training import PROFILE, job
from trainer.rows import merged
from trainer.training import train
kill_at = int(sys.argv[2])
def tick(step, steps, loss, batch):
    if step == kill_at:
        os.kill(os.getpid(), 9)
train(tiny_base(), job(merged(selection_rows(toy_renderer()))), PROFILE, Path(sys.argv[1]), seed=0, tick=tick)
"""


@pytest.mark.real
def test_a_process_killed_in_the_middle_ends_in_the_same_bytes(rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    assert subprocess.run([*command, "6"], check=False).returncode == -signal.SIGKILL
    subprocess.run([*command, "0"], check=True)
    assert sha256(tmp_path / "killed" / "select") == whole


def killed_after(steps: int, rows: list[TrainRow], out: Path) -> None:
    """Trains in a process of its own, which is killed from outside wherever it is soon after so many more steps."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(
                tiny_base(), job(rows), PROFILE, out, seed=0, tick=lambda step, total, loss, batch: os.write(tell, b".") and None
            )
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    for _ in range(steps):
        os.read(told, 1)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(told)
    # Who had fewer steps to go is done, and has not failed.
    assert status in (0, signal.SIGKILL)


@pytest.mark.real
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_steps_change_no_byte(seed: int, rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))
    dice = random.Random(seed)
    for _ in range(5):
        killed_after(dice.randint(1, 5), rows, tmp_path / "killed")
        if (tmp_path / "killed" / "select").exists():
            break
    assert sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "killed", seed=0)) == whole


def test_half_a_checkpoint_is_none(rows: list[TrainRow], tmp_path: Path) -> None:
    whole = sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "whole", seed=0))
    (tmp_path / "cut" / "select.checkpoints").mkdir(parents=True)
    (tmp_path / "cut" / "select.checkpoints" / "staging").write_bytes(b"half")
    assert sha256(train(tiny_base(), job(rows), PROFILE, tmp_path / "cut", seed=0)) == whole
    assert not (tmp_path / "cut" / "select.checkpoints").exists()
