"""Step 4, training: one LoRA adapter from rows, over a base model that stays loaded for the next one.

Nothing here depends on the clock: the same rows, profile and seed give the same bytes, whether or not the run was killed in
between. A checkpoint is whole or absent, and a damaged one gives way to the one before it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from services.shared.clients.adapter_files import hashes_of
from services.shared.contracts.adapters import CONFIG_FILE, WEIGHTS_FILE, Role
from services.shared.contracts.tools import sha256_of
from trainer.attention import WHOLE
from trainer.losses import checkpoint_gradients, split_of, target_losses
from trainer.profiles import Profile
from trainer.rows import TrainRow
from trainer.timings import CURVE

# Step, steps, the mean loss per target, and the batch.
Tick = Callable[[int, int, float, Sequence[TrainRow]], None]
# Torch has one random state for all threads; whoever draws a fresh adapter from it has it alone.
_DICE = threading.Lock()


class TrainingFailed(RuntimeError):
    """The numbers went wrong; the message names the step and the rows."""


@dataclass(frozen=True)
class Job:
    """One adapter to train: `tool` for an adapter of one tool's arguments, else None."""

    alias: str
    role: Role
    tool: str | None
    rows: Sequence[TrainRow]

    @property
    def data_sha256(self) -> str:
        """Commits to every token and every target."""
        return sha256_of([[row.name, row.role, list(row.ids), list(row.targets)] for row in self.rows])


def load_base(folder: Path, device: str = "cpu") -> Any:
    """The base model in bfloat16, frozen."""
    attention = WHOLE if device == "cpu" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=attention).to(device)
    return model.requires_grad_(False)


def train(
    base: Any,
    job: Job,
    profile: Profile,
    out: Path,
    *,
    seed: int,
    activation: Sequence[int] | None = None,
    begin: Path | None = None,
    tick: Tick = lambda step, steps, loss, batch: None,
) -> Path:
    """Trains `job` and gives the folder with PEFT's two files; at once when it is there already.

    `activation` are the activation tokens of an activated LoRA, None trains a plain one. `begin` is the folder of an adapter to
    go on from, None begins with a fresh one. Threads may train over one base at the same time, unless dropout draws from the
    random state that they share.

    Raises:
        LookupError: the adapter in `begin` has another shape than the profile's.
        TrainingFailed: the loss is not a number any more.
    """
    done = out / job.alias
    if (done / WEIGHTS_FILE).exists():
        return done
    out.mkdir(parents=True, exist_ok=True)
    with _DICE:
        torch.manual_seed(seed)
        model = with_adapter(base, profile)
        if begin:
            _put_on(model, begin)
        if profile.gradient_checkpointing and activation is None:
            checkpoint_gradients(model)
        run = _Run(model, job, profile, seed, begin, out / f"{job.alias}.checkpoints")
        run.resume()
    with (out / f"{job.alias}.{CURVE}").open("a") as curve:
        while run.step < len(run.plan):
            batch = [job.rows[index] for index in run.plan[run.step]]
            loss = run.advance(activation)
            curve.write(json.dumps({"step": run.step, "loss": round(loss, 5)}) + "\n")
            curve.flush()
            tick(run.step, len(run.plan), loss, batch)
            if run.step % profile.checkpoint_steps == 0:
                run.save()
    _write_adapter(model, done)
    run.forget()
    return done


def with_adapter(base: Any, profile: Profile) -> PeftModel:
    """The base's weights under a fresh adapter on all linear layers, drawn from torch's random state. The base stays as it is."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=profile.rank,
        lora_alpha=profile.alpha,
        lora_dropout=profile.dropout,
        use_rslora=profile.rslora,
        target_modules="all-linear",
    )
    # Kept in the base's own precision, as it will be served; the optimiser has masters in float32.
    model = get_peft_model(_twin(base), config, autocast_adapter_dtype=False)
    assert isinstance(model, PeftModel)
    return model


def _put_on(model: PeftModel, folder: Path) -> None:
    """Gives the model's adapter the weights of the trained one in `folder`.

    Raises:
        LookupError: that one has another shape, or scales otherwise.
    """
    theirs, ours = LoraConfig.from_pretrained(str(folder)), model.peft_config["default"]
    for name in ("r", "lora_alpha", "use_rslora"):
        if getattr(theirs, name) != getattr(ours, name):
            told = f"{name} is {getattr(theirs, name)} in {folder.name} and {getattr(ours, name)} in the profile"
            raise LookupError(f"training cannot go on from there: {told}")
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE))


def _twin(base: Any) -> Any:
    """The same weights in modules of its own: PEFT puts adapters into the modules that it is given."""
    return copy.deepcopy(base, {id(weights): weights for weights in (*base.parameters(), *base.buffers())})


def wearing(base: Any, folder: Path | None) -> Any:
    """The base's weights under the trained adapter of `folder`; without one, the base. The base stays as it is."""
    if folder is None:
        return base
    config = LoraConfig.from_pretrained(str(folder))
    model = get_peft_model(_twin(base), config, autocast_adapter_dtype=False)
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE))
    return model


def batches(rows: Sequence[TrainRow], profile: Profile, seed: int) -> list[list[int]]:
    """The whole plan, as indices of rows: every epoch has each row once, rows of like beginning and length together."""
    plan: list[list[int]] = []
    for epoch in range(profile.epochs):
        dice = random.Random(f"{seed}/{epoch}")
        # The first tokens tell whether two rows share their system prompt, and with it a head that is computed once.
        order = sorted(range(len(rows)), key=lambda i: (rows[i].ids[:12], len(rows[i].ids) + dice.random() * 24))
        packed: list[list[int]] = [[]]
        for index in order:
            last = packed[-1]
            full = len(last) == profile.batch_rows or (len(last) + 1) * len(rows[index].ids) > profile.batch_tokens
            if last and (full or rows[last[0]].ids[:12] != rows[index].ids[:12]):
                packed.append([])
            packed[-1].append(index)
        dice.shuffle(packed)
        plan += packed
    return plan


def optimizer_over(masters: list[torch.Tensor], profile: Profile) -> torch.optim.Optimizer:
    """AdamW; one that remembers in 8 bits (arXiv 2110.02861) where the profile wants it and bitsandbytes is installed."""
    kind: Any = torch.optim.AdamW
    if profile.eight_bit and importlib.util.find_spec("bitsandbytes"):
        from bitsandbytes.optim import AdamW8bit

        kind = AdamW8bit
    optimizer: torch.optim.Optimizer = kind(masters, lr=profile.learning_rate, weight_decay=profile.weight_decay)
    return optimizer


class _Run:
    """Where a training stands."""

    def __init__(self, model: Any, job: Job, profile: Profile, seed: int, begin: Path | None, folder: Path) -> None:
        self.job, self.profile, self.folder = job, profile, folder
        self.model = model
        self.plan = batches(job.rows, profile, seed)
        self.step = 0
        self.params = [param for param in model.parameters() if param.requires_grad]
        self.masters = [param.detach().float().clone().requires_grad_() for param in self.params]
        self.optimizer = optimizer_over(self.masters, profile)
        self.identity = sha256_of(
            [job.data_sha256, repr(profile), type(self.optimizer).__name__, seed, begin and hashes_of(begin)]
        )

    def advance(self, activation: Sequence[int] | None) -> float:
        """One step; the mean loss per target."""
        rows = [self.job.rows[index] for index in self.plan[self.step]]
        self.model.train()
        loss = target_losses(self.model, rows, split_of(self.model, rows, activation)).mean()
        if not math.isfinite(loss.item()):
            names = ", ".join(row.name for row in rows)
            raise TrainingFailed(f"adapter {self.job.alias}: the loss is {loss.item()} at step {self.step + 1}, in rows {names}")
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.profile.learning_rate * self._pace()
        for master, param in zip(self.masters, self.params, strict=True):
            master.grad = None if param.grad is None else param.grad.float()
            param.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        self._show_masters()
        self.step += 1
        return float(loss.item())

    def _pace(self) -> float:
        """The share of the learning rate at this step: linear warm-up, then cosine to a twentieth."""
        warmup = min(self.profile.warmup_steps, len(self.plan) // 4)
        if self.step < warmup:
            return (self.step + 1) / warmup
        progress = (self.step - warmup) / max(1, len(self.plan) - warmup)
        return 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2

    def _show_masters(self) -> None:
        with torch.no_grad():
            for master, param in zip(self.masters, self.params, strict=True):
                param.copy_(master)

    def save(self) -> None:
        """A checkpoint beside the last one; older ones go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": self.identity,
            "step": self.step,
            "masters": [master.detach() for master in self.masters],
            "optimizer": self.optimizer.state_dict(),
            "dice": torch.get_rng_state(),
            "gpu_dice": torch.cuda.get_rng_state_all(),
        }
        staging = self.folder / "staging"
        with staging.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(self.folder / f"{self.step:08d}.pt")
        for old in sorted(self.folder.glob("*.pt"))[:-2]:
            old.unlink()

    def resume(self) -> None:
        """Goes on from the newest checkpoint that is whole and of this very training; from the start if there is none."""
        for path in sorted(self.folder.glob("*.pt"), reverse=True):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception:
                # Torch has no one error for a damaged file.
                path.unlink()
                continue
            if state["identity"] != self.identity:
                path.unlink()
                continue
            with torch.no_grad():
                for master, saved in zip(self.masters, state["masters"], strict=True):
                    master.copy_(saved)
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["dice"])
            for device, dice in enumerate(state.get("gpu_dice", ())[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(dice, device)
            self.step = state["step"]
            self._show_masters()
            return

    def forget(self) -> None:
        """Removes the checkpoints."""
        for path in self.folder.glob("*"):
            path.unlink()
        if self.folder.exists():
            self.folder.rmdir()


def _write_adapter(model: PeftModel, folder: Path) -> None:
    """PEFT's two files; the weights come last, and with them the folder is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"].to_dict()
    # An activated LoRA is served by our own plug-in, which reads its tokens from the card.
    config |= {"inference_mode": True, "base_model_name_or_path": None, "alora_invocation_tokens": None}
    (folder / CONFIG_FILE).write_text(json.dumps(_plain(config), indent=2, sort_keys=True) + "\n")
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in sorted(get_peft_model_state_dict(model).items())}
    staging = folder / (WEIGHTS_FILE + ".staging")
    save_file(state, staging)
    staging.replace(folder / WEIGHTS_FILE)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return getattr(value, "value", value)


if __name__ == "__main__":
    # The driver imports this file.
    from trainer.__main__ import main

    raise SystemExit(main(until="training"))
