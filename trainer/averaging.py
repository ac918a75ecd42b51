"""Means of adapters: of several trainings of the same thing, the mean of what they learned errs less than any one of them.

Averaging in weights instead of votes (model soups, arXiv 2203.05482): serving costs what one adapter costs. What is averaged are
the updates B·A·scale themselves, not their factors, which mean nothing apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from services.shared.contracts.adapters import CONFIG_FILE, WEIGHTS_FILE

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def mean_of(folders: Sequence[Path], out: Path) -> float:
    """Writes the mean of these adapters, in the first one's rank and scale, and gives the share of its square norm that is kept.

    A mean of n updates of rank r has a rank of up to n·r; the best approximation of rank r is kept (Eckart and Young), which is
    found in the factors: the large matrices are never made.

    Raises:
        LookupError: they are not adapters of the same layers.
    """
    weights = [load_file(folder / WEIGHTS_FILE) for folder in folders]
    configs = [LoraConfig.from_pretrained(str(folder)) for folder in folders]
    for folder, theirs in zip(folders, weights, strict=True):
        if theirs.keys() != weights[0].keys():
            raise LookupError(f"the adapters in {folders[0]} and {folder} are not of the same layers")
    scales = [_scale(config) / len(folders) for config in configs]
    rank, scale = configs[0].r, _scale(configs[0])
    made: dict[str, torch.Tensor] = {}
    kept = whole = 0.0
    for down in (name for name in weights[0] if name.endswith(DOWN)):
        up = down.removesuffix(DOWN) + UP
        ups = torch.cat([theirs[up].double() * by for theirs, by in zip(weights, scales, strict=True)], 1)
        downs = torch.cat([theirs[down].double() for theirs in weights], 0)
        left, left_core = torch.linalg.qr(ups)
        right, right_core = torch.linalg.qr(downs.T)
        inner, strengths, outer = torch.linalg.svd(left_core @ right_core.T)
        kept += float((strengths[:rank] ** 2).sum())
        whole += float((strengths**2).sum())
        # Half of each strength on either side: both factors stay in the range of numbers that they were trained in.
        root = strengths[:rank].sqrt() / math.sqrt(scale)
        made[up] = (left @ inner[:, :rank] * root).to(weights[0][up].dtype).contiguous()
        made[down] = (root[:, None] * (outer[:rank] @ right.T)).to(weights[0][down].dtype).contiguous()
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text((folders[0] / CONFIG_FILE).read_text())
    staging = out / (WEIGHTS_FILE + ".staging")
    save_file(made, staging)
    staging.replace(out / WEIGHTS_FILE)
    return kept / whole if whole else 1.0


def _scale(config: LoraConfig) -> float:
    return config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
