"""All steps in order: queries, trajectories, dataset, training, evaluation, gate, publishing. What is done is not repeated.

python -m trainer --toolset filesystem --profile small --store .run/adapters
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Nothing here may ask the network, and nobody else's progress bars.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.tools import JsonObject, Tool
from trainer.dataset import REPORT, write_dataset
from trainer.episodes import read_rows, write_rows
from trainer.evaluate import Outcome, evaluate_arguments, evaluate_selection, figures, read_outcomes, table
from trainer.profiles import PROFILES, Profile
from trainer.publish import GateRefused, Origin, Trained, publish
from trainer.queries import EPISODES, HELDOUT, write_queries
from trainer.rows import Decision, TrainRow, arguments_row, balanced, decisions, merged, selection_row
from trainer.training import Job, TrainingFailed, load_base, train, wearing
from trainer.trajectories import TRAJECTORIES, Trajectory, write_trajectories

HELDOUT_TRAJECTORIES = "heldout_trajectories.jsonl"


@dataclass(frozen=True)
class Plan:
    """What to train from, with what, and where the work is kept."""

    toolset: str
    tools: Sequence[Tool]
    toolsets_dir: Path
    model_dir: Path
    work: Path
    profile: Profile
    seed: int
    activation: Sequence[int] | None
    joint: bool
    evaluated: int


def prepare(plan: Plan, bar: Callable[[str], Any]) -> None:
    """Steps 1 to 3, up to train.jsonl."""
    work = plan.work
    if not (work / HELDOUT).exists():
        write_queries(plan.toolset, work, count=plan.profile.episodes, heldout=plan.profile.heldout, seed=plan.seed)
    if not (work / HELDOUT_TRAJECTORIES).exists():
        jobs = {work / EPISODES: work / TRAJECTORIES, work / HELDOUT: work / HELDOUT_TRAJECTORIES}
        with bar("trajectories") as tick:
            asyncio.run(write_trajectories(plan.toolset, plan.toolsets_dir, jobs, tick))
    if not (work / REPORT).exists():
        write_dataset(work / TRAJECTORIES, work / HELDOUT_TRAJECTORIES, work, seed=plan.seed)


def jobs(plan: Plan) -> list[Job]:
    """Which adapters to train, each with its rows."""
    renderer, tokenizer = PromptRenderer.load(plan.model_dir), Tokenizer.from_file(str(plan.model_dir / "tokenizer.json"))
    found = decisions_of(plan.work / "train.jsonl", plan.tools)
    profile = plan.profile.prompt_profile
    selections = [selection_row(renderer, decision, plan.tools, profile) for decision in balanced(found)]
    written = [row for decision in found if (row := arguments_row(renderer, tokenizer, decision, plan.tools, profile))]
    short = [row for row in (*selections, *written) if len(row.ids) <= plan.profile.max_tokens]
    selections, written = ([row for row in short if row.role == role] for role in ("selection", "arguments"))
    if plan.joint:
        return [Job("joint", "joint", None, _rows(plan, short))]
    selector = Job("select", "selector", None, _rows(plan, selections))
    if plan.profile.argument_adapters == "shared":
        return [selector, Job("joint", "joint", None, _rows(plan, written))]
    by_tool = {tool.name: [row for row in written if row.label == tool.name] for tool in plan.tools}
    return [selector, *(Job(name, "arguments", name, _rows(plan, rows)) for name, rows in by_tool.items() if rows)]


def _rows(plan: Plan, rows: Sequence[TrainRow]) -> list[TrainRow]:
    # An activated adapter acts on one turn only, so there each turn stays a row of its own.
    return list(rows) if plan.activation else merged(rows)


def decisions_of(path: Path, tools: Sequence[Tool]) -> list[Decision]:
    """Every decision of a file of trajectories."""
    rows = read_rows(path, Trajectory)
    return [found for row in rows for found in decisions(row.id, row.kind, row.messages, tools, row.failed)]


def train_all(plan: Plan, base: Any, bar: Callable[[str], Any]) -> list[Trained]:
    """Step 4: every adapter over the one base."""
    trained = []
    for job in jobs(plan):
        with bar(f"train {job.alias}") as tick:

            def shown(step: int, steps: int, _: float, tick: Callable[[int, int], None] = tick) -> None:
                tick(step, steps)

            folder = train(base, job, plan.profile, plan.work, seed=plan.seed, activation=plan.activation, tick=shown)
        trained.append(Trained(folder, job.role, job.tool, plan.profile.rank, job.data_sha256))
    return trained


def evaluate(plan: Plan, base: Any, trained: Sequence[Trained], bar: Callable[[str], Any]) -> JsonObject:
    """Step 5: the base model and the adapters on the same held-out decisions."""
    rows = list(read_rows(plan.work / HELDOUT_TRAJECTORIES, Trajectory))[: plan.evaluated]
    found = [one for row in rows for one in decisions(row.id, row.kind, row.messages, plan.tools, row.failed)]
    before = _outcomes(plan, base, [], found, plan.work / "outcomes_base.jsonl", bar)
    after = _outcomes(plan, base, trained, found, plan.work / "outcomes_adapters.jsonl", bar)
    numbers = figures(after, before, answer_label(plan.tools))
    (plan.work / "report.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (plan.work / "report.md").write_text(table(numbers))
    return numbers


def _outcomes(
    plan: Plan, base: Any, trained: Sequence[Trained], found: Sequence[Decision], path: Path, bar: Callable[[str], Any]
) -> list[Outcome]:
    if path.exists() and len(known := read_outcomes(path)) == len(found):
        return known
    renderer, tokenizer = PromptRenderer.load(plan.model_dir), Tokenizer.from_file(str(plan.model_dir / "tokenizer.json"))
    profile, who = plan.profile.prompt_profile, "adapters" if trained else "base model"
    with bar(f"selection, {who}") as tick, wearing(base, _folder(trained, "selector")) as model:
        outcomes = evaluate_selection(model, renderer, found, plan.tools, profile, plan.activation, tick)
    for tools, folder in _writers(plan, trained):
        mine = [i for i, decision in enumerate(found) if decision.label in tools]
        with bar(f"arguments, {who}") as tick, wearing(base, folder) as model:
            some = [outcomes[i] for i in mine], [found[i] for i in mine]
            written = evaluate_arguments(model, renderer, tokenizer, *some, plan.tools, profile, plan.activation, tick)
        for i, outcome in zip(mine, written, strict=True):
            outcomes[i] = outcome
    write_rows(path, outcomes)
    return outcomes


def _folder(trained: Sequence[Trained], role: str) -> Path | None:
    return next((adapter.folder for adapter in trained if adapter.role in (role, "joint")), None)


def _writers(plan: Plan, trained: Sequence[Trained]) -> list[tuple[set[str], Path | None]]:
    """Which adapter writes the arguments of which tools."""
    own = [({adapter.tool}, adapter.folder) for adapter in trained if adapter.tool]
    rest = {tool.name for tool in plan.tools} - {tool for tools, _ in own for tool in tools}
    joint = next((adapter.folder for adapter in trained if adapter.role == "joint"), None)
    return [*own, (rest, joint)]


@contextmanager
def progress() -> Iterator[Callable[[str], Any]]:
    """`with bar("name") as tick: tick(done, total)`: one line per step, with the time it will still take."""
    columns = (
        TextColumn("{task.description:>28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:

        @contextmanager
        def bar(name: str) -> Iterator[Callable[[int, int], None]]:
            task = shown.add_task(name, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)

        yield bar


def run(plan: Plan, store: Path, *, force: bool) -> str:
    """The whole pipeline; the report, and what serves now.

    Raises:
        GateRefused, TrainingFailed, AgentFluxError, LookupError, RuntimeError: as the names and messages say.
    """
    plan.work.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        prepare(plan, bar)
        base = load_base(plan.model_dir, "cuda" if torch.cuda.is_available() else "cpu")
        trained = train_all(plan, base, bar)
        numbers = evaluate(plan, base, trained, bar)
    origin = Origin(plan.toolset, plan.tools, plan.model_dir, plan.profile.prompt_profile, plan.seed, activation=plan.activation)
    release = publish(trained, origin, numbers, store, force=force, note=f"python -m trainer --seed {plan.seed}")
    return f"{table(numbers)}\nrelease {release.number} of {plan.toolset}: {', '.join(release.adapters.names)}\n"


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    listed = json.loads((args.toolsets_dir / args.toolset / "tools.json").read_text())
    profile = PROFILES[args.profile]
    if args.episodes:
        profile = replace(profile, episodes=args.episodes)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    # The generation prompt of ChatML: what every decision comes right after.
    activation = tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids if args.alora else None
    told_apart = repr((profile, args.seed, args.alora, args.joint)).encode()
    work = args.work / args.toolset / f"{args.profile}-{hashlib.sha256(told_apart).hexdigest()[:8]}"
    tools = [Tool(**entry["function"]) for entry in listed]
    return Plan(
        args.toolset, tools, args.toolsets_dir, args.model, work, profile, args.seed, activation, args.joint, args.evaluated
    )


def main() -> int:
    """Parses the command line; the exit status is 1 when nothing was published."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("--toolset", required=True, help="a folder of the toolsets")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="small")
    parser.add_argument("--store", type=Path, required=True, help="the adapter store to publish into")
    parser.add_argument("--model", type=Path, default=Path(".run/models/smollm2-135m-instruct"), help="the base model's folder")
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="where rows, checkpoints and reports are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=0, help="how many conversations to write; 0 is what the profile says")
    parser.add_argument("--evaluated", type=int, default=150, help="how many held-out conversations to evaluate on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alora", action="store_true", help="train activated LoRA, which acts from the generation prompt on")
    parser.add_argument("--joint", action="store_true", help="train one adapter for everything")
    parser.add_argument("--force", action="store_true", help="publish even what is not better; the card says so")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        print(run(make_plan(args), args.store, force=args.force))
    except (GateRefused, TrainingFailed, AgentFluxError, LookupError, RuntimeError, FileNotFoundError) as error:
        print(f"trainer: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
