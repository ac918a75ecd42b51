"""The mean of adapters: of what they do to the base model, at the rank of one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.shared.contracts.adapters import WEIGHTS_FILE
from tests.trainer.test_training import PROFILE, job
from trainer.averaging import DOWN, UP, mean_of
from trainer.profiles import Profile
from trainer.rows import TrainRow
from trainer.training import train

SMALL = replace(PROFILE, epochs=2)


@pytest.fixture
def trained(base: Any, rows: list[TrainRow], tmp_path: Path) -> Any:
    def make(seed: int, profile: Profile = SMALL) -> Path:
        return train(base, job(rows), profile, tmp_path / f"{seed}-{profile.rank}-{profile.rslora}", seed=seed)

    return make


def updates(folder: Path, scale: float = SMALL.alpha / SMALL.rank) -> dict[str, torch.Tensor]:
    """What the adapter adds to each matrix of the base model."""
    weights = load_file(folder / WEIGHTS_FILE)
    names = (name.removesuffix(UP) for name in weights if name.endswith(UP))
    return {name: weights[name + UP].double() @ weights[name + DOWN].double() * scale for name in names}


def length(update: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(matrix.square().sum()) for matrix in update.values()))


def minus(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    assert one.keys() == other.keys()
    return {name: one[name] - other[name] for name in one}


def test_the_mean_of_an_adapter_with_itself_is_that_adapter(trained: Any, tmp_path: Path) -> None:
    folder = trained(0)
    assert mean_of([folder, folder], tmp_path / "mean") == pytest.approx(1)
    assert length(minus(updates(tmp_path / "mean"), updates(folder))) < 1e-4 * length(updates(folder))


def test_the_mean_is_the_nearest_of_its_rank(trained: Any, tmp_path: Path) -> None:
    folders = [trained(seed) for seed in (0, 1, 2)]
    share = mean_of(folders, tmp_path / "mean")
    made, *theirs = (updates(folder) for folder in (tmp_path / "mean", *folders))
    exact = {name: sum(one[name] for one in theirs) / 3 for name in made}
    for name, matrix in made.items():
        strengths = torch.linalg.svdvals(exact[name])
        assert torch.linalg.matrix_rank(matrix, rtol=1e-5) <= SMALL.rank
        # Eckart and Young: what is lost is what the smaller singular values held.
        assert float((exact[name] - matrix).norm()) == pytest.approx(float(strengths[SMALL.rank :].norm()), rel=1e-3)
    assert share == pytest.approx(1 - (length(minus(exact, made)) / length(exact)) ** 2, rel=1e-4)
    assert 0.3 < share < 1


def test_scales_and_ranks_of_each_count(trained: Any, tmp_path: Path) -> None:
    one, other = trained(0), trained(0, replace(SMALL, rank=8, rslora=True))
    mean_of([other, one], tmp_path / "mean")
    wider = updates(other, SMALL.alpha / math.sqrt(8))
    exact = {name: (update + wider[name]) / 2 for name, update in updates(one).items()}
    # Of rank 12 in all, 8 are kept; the strongest direction is among them.
    for name, matrix in updates(tmp_path / "mean", SMALL.alpha / math.sqrt(8)).items():
        assert torch.linalg.matrix_norm(exact[name] - matrix, 2) < 0.5 * torch.linalg.matrix_norm(exact[name], 2)


def test_an_adapter_of_other_layers_is_named(trained: Any, tmp_path: Path) -> None:
    folders = [trained(0), trained(1)]
    weights = load_file(folders[1] / WEIGHTS_FILE)
    weights.pop(next(iter(weights)))
    save_file(weights, folders[1] / WEIGHTS_FILE)
    with pytest.raises(LookupError, match=r"the adapters in \S+ and \S+ are not of the same layers"):
        mean_of(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
