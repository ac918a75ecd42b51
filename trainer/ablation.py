"""What the design of the adapters is worth: each variant on the same decisions, in as many steps, on the same held-out rows.

    python -m trainer.ablation --work build/train/filesystem/small-… --rows 600 --seeds 0,1,2 --out build/train/ablation

decoupled      a selector adapter, and one for all arguments; only what each decides is learned. What the trainer makes.
joint          one adapter learns the rows of both.
conventional   one adapter learns whole calls, as fine-tuning for tool calls usually goes.
whole_turn     as decoupled, but all of the turn up to the decision is learned, not the name or the arguments alone.
alora          as decoupled, with activated LoRA.

A single adapter has twice the rank, and so as many parameters as two. Every trained and evaluated seed of a variant is kept, and
a training that was killed goes on from its last checkpoint: the same command again does what is missing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from services.shared.contracts.prompts import answer_label
from services.shared.contracts.tools import Tool, sha256_of
from trainer.command import status_of
from trainer.dataset import heldout_of
from trainer.episodes import read_rows, write_rows
from trainer.evaluate import Prompts, select_all, write_all
from trainer.figures import Outcome, figures, read_outcomes
from trainer.pages import Section, markdown_table
from trainer.profiles import PROFILES, Profile
from trainer.report import combined
from trainer.rows import Decision, TrainRow, arguments_row, arguments_text, balanced, decisions, merged, selection_row, thinned
from trainer.training import Job, batches, load_base, train, wearing
from trainer.trajectories import Trajectory

VARIANTS = ("decoupled", "joint", "conventional", "whole_turn", "alora")
REFERENCE = "decoupled"
SHOWN = ("selection_first_turn", "selection_later_turns", "arguments_exact", "end_to_end")
TABLE = "ablation.md"


@dataclass(frozen=True)
class Study:
    """What all variants have in common; `activation` is for activated LoRA only."""

    base: Any
    prompts: Prompts
    activation: Sequence[int]
    learned: Sequence[Decision]
    heldout: Sequence[Decision]
    profile: Profile
    out: Path


@dataclass(frozen=True)
class Task:
    """One adapter of a variant, with the profile under which it is trained."""

    job: Job
    profile: Profile


def run(study: Study, variants: Sequence[str], seeds: Sequence[int]) -> str:
    """Trains and evaluates what is not there yet; the table in Markdown, also written to `study.out` after each variant."""
    found: dict[str, list[list[Outcome]]] = {}
    steps: dict[str, int] = {}
    text = ""
    for variant in dict.fromkeys((REFERENCE, *variants)):
        for seed in seeds:
            found.setdefault(variant, []).append(outcomes(study, variant, seed))
            print(f"ablation: {variant}, seed {seed}, is done", file=sys.stderr)
        steps[variant] = sum(_steps(task, 0) for task in tasks(study, variant, 0))
        text = _table(found, steps, answer_label(study.prompts.tools))
        (study.out / TABLE).write_text(text)
    return text


def outcomes(study: Study, variant: str, seed: int) -> list[Outcome]:
    """What the adapters of a variant decide on the held-out rows."""
    todo = tasks(study, variant, seed)
    heldout = [[one.trajectory, one.turn, one.messages] for one in study.heldout]
    identity = sha256_of([[[task.job.data_sha256, repr(task.profile)] for task in todo], seed, sha256_of(heldout)])
    folder = study.out / f"{variant}-{seed}-{identity[:8]}"
    if (folder / "outcomes.jsonl").exists():
        return read_outcomes(folder / "outcomes.jsonl")
    activation = study.activation if variant == "alora" else None
    made = [train(study.base, task.job, task.profile, folder, seed=seed, activation=activation) for task in todo]
    prompts = replace(study.prompts, activation=activation)
    found = select_all(wearing(study.base, made[0]), prompts, study.heldout)
    found = write_all(wearing(study.base, made[-1]), prompts, found, study.heldout)
    write_rows(folder / "outcomes.jsonl", found)
    return found


def tasks(study: Study, variant: str, seed: int) -> list[Task]:
    """The selector and the writer of a variant, or the one adapter that is both."""
    selections, written = rows_of(study, variant == "whole_turn")
    pair = [Task(Job("select", "selector", None, merged(selections)), study.profile)]
    pair.append(Task(Job("joint", "joint", None, merged(written)), study.profile))
    if variant in ("decoupled", "whole_turn"):
        return pair
    if variant == "alora":
        # An activated adapter acts on one turn only, so there each turn stays a row of its own.
        apart = [replace(task.job, rows=rows) for task, rows in zip(pair, (selections, written), strict=True)]
        return [Task(job, paced(study.profile, job, _steps(task, seed), seed)) for task, job in zip(pair, apart, strict=True)]
    rows = [*selections, *written] if variant == "joint" else calls_of(study)
    job = Job("joint", "joint", None, merged(rows))
    wide = replace(study.profile, rank=2 * study.profile.rank, alpha=2 * study.profile.alpha)
    return [Task(job, paced(wide, job, sum(_steps(task, seed) for task in pair), seed))]


def paced(profile: Profile, job: Job, steps: int, seed: int) -> Profile:
    """The profile with batches of the size at which the job takes most nearly so many steps."""
    sizes = [replace(profile, batch_rows=size) for size in range(1, 2 * profile.batch_rows + 1)]
    return min(sizes, key=lambda sized: abs(len(batches(job.rows, sized, seed)) - steps))


def _steps(task: Task, seed: int) -> int:
    return len(batches(task.job.rows, task.profile, seed))


def rows_of(study: Study, whole: bool) -> tuple[list[TrainRow], list[TrainRow]]:
    """Selections and arguments of the learned decisions; `whole` rows count all of the turn up to their end."""
    how, profile = study.prompts, study.profile.prompt_profile
    selections = [(one, selection_row(how.renderer, one, how.tools, profile)) for one in balanced(study.learned)]
    written = [(one, arguments_row(how.renderer, how.tokenizer, one, how.tools, profile)) for one in study.learned]

    def kept(pairs: Sequence[tuple[Decision, TrainRow | None]]) -> list[TrainRow]:
        short = [(one, row) for one, row in pairs if row and len(row.ids) <= study.profile.max_tokens]
        return [_whole(how, one, row) if whole else row for one, row in short]

    return kept(selections), kept(written)


def calls_of(study: Study) -> list[TrainRow]:
    """Whole calls, name and arguments in one row."""
    how, rows = study.prompts, []
    by_name = {tool.name: tool for tool in how.tools}
    for one in balanced(study.learned):
        written = arguments_text(one.arguments or {}, by_name[one.label]) if one.label in by_name else "{}"
        ids = how.arguments(one) + how.tokenizer.encode(written + "}\n</tool_call>", add_special_tokens=False).ids
        rows.append(_whole(how, one, TrainRow(f"{one.trajectory}/{one.turn}", "arguments", one.label, tuple(ids), ())))
    return [row for row in rows if len(row.ids) <= study.profile.max_tokens]


def _whole(how: Prompts, decision: Decision, row: TrainRow) -> TrainRow:
    prefix = how.renderer.prefix(decision.messages, how.tools, how.profile)
    before = [*prefix.head, *how.tokenizer.encode(prefix.rest, add_special_tokens=False).ids]
    start = next(at for at, (token, known) in enumerate(zip(row.ids, [*before, -1], strict=False)) if token != known)
    return replace(row, targets=tuple(range(start, len(row.ids))))


def _table(found: dict[str, list[list[Outcome]]], steps: dict[str, int], answer: str) -> str:
    rows = []
    first = found[REFERENCE][0]
    # Where only first turns are asked for, there is nothing to say of later ones.
    shown = [name for name in SHOWN if figures(first, first, answer)[name]["of"]]
    for variant, seeds in found.items():
        numbers = combined([figures(one, other, answer) for one, other in zip(seeds, found[REFERENCE], strict=True)])
        cells = [f"{numbers[name]['mean']:.1%} ({numbers[name]['worst']:.1%})" for name in shown]
        p = ["" if variant == REFERENCE else f"{numbers[name]['largest_p']:.2g}" for name in shown]
        rows.append([variant, str(steps[variant]), *(part for pair in zip(cells, p, strict=True) for part in pair)])
    header = ["variant", "steps", *(part for name in shown for part in (name.replace("_", " "), "p"))]
    note = (
        f"{len(first)} held-out decisions, {len(found[REFERENCE])} seeds: mean (worst). "
        f"p: paired against {REFERENCE}, seed by seed, the largest of them."
    )
    return f"{note}\n\n{markdown_table(Section('', header=header, rows=rows))}\n"


def some(path: Path, tools: Sequence[Tool], count: int, followed: int | None = 1) -> list[Decision]:
    """Decisions of conversations drawn at random, `count` or a few more; the same ones every time.

    All decisions of one conversation in `followed`, of the others the first; with None only the first of each.
    """
    rows = list(read_rows(path, Trajectory))
    random.Random(0).shuffle(rows)
    found: list[Decision] = []
    for row in rows:
        if len(found) < count:
            own = decisions(row.id, row.kind, row.messages, tools, row.mistakes, row.accepted)
            found += thinned(own, followed) if followed else [one for one in own if one.turn == 0]
    return found


def main() -> None:
    """Parses the command line, runs everything that is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toolset", default="filesystem", help="a folder of the toolsets")
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--profile", choices=sorted(PROFILES), default="small")
    parser.add_argument("--model", type=Path, default=Path(".run/models/smollm2-135m-instruct"), help="the base model's folder")
    parser.add_argument("--work", type=Path, required=True, help="a training's folder, such as build/train/filesystem/small-…")
    parser.add_argument("--rows", type=int, default=400, help="how many decisions to learn from")
    parser.add_argument("--epochs", type=int, default=0, help="how often each row is seen; 0 is what the profile says")
    parser.add_argument("--evaluated", type=int, default=150, help="how many held-out decisions to evaluate on")
    parser.add_argument("--first-turns", action="store_true", help="learn and ask for nothing but first turns, which are cheap")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("build/train/ablation"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    variants = args.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"there is no variant {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    torch.set_num_threads(args.threads)
    tools = [Tool(**entry["function"]) for entry in json.loads((args.toolsets_dir / args.toolset / "tools.json").read_text())]
    profile = PROFILES[args.profile]
    prompts = Prompts.load(args.model, tools, profile.prompt_profile)
    study = Study(
        base=load_base(args.model, "cuda" if torch.cuda.is_available() else "cpu"),
        prompts=prompts,
        activation=prompts.tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids,
        learned=some(args.work / "train.jsonl", tools, args.rows, None if args.first_turns else profile.followed),
        heldout=some(heldout_of(args.work), tools, args.evaluated, None if args.first_turns else 1),
        profile=replace(profile, epochs=args.epochs or profile.epochs),
        out=args.out,
    )
    print(run(study, variants, [int(seed) for seed in args.seeds.split(",")]), end="")


if __name__ == "__main__":
    raise SystemExit(status_of(main))
