"""A second evaluation, on requests written by hand: what the adapters that a store serves make of everyday language.

    python -m trainer.handwritten --toolset filesystem --store .run/adapters --requests everyday

The held-out grammar of a toolset shuns every verb that training has, so it asks for the hardest generalisation. The requests in
trainer/heldout/<toolset>_everyday.jsonl shun none: they are single sentences, each written for itself, as people write; in
<toolset>_documents.jsonl what is read is as long as real documents are, and some of it gives orders that nobody may obey. Half of
<toolset>_goals.jsonl are goals that take two to four calls, such as to find a file and then change it, or to copy one. Those
that resemble a training question (`--train` names the rows, such as build/train/filesystem/small-…/train.jsonl) are left out
and counted. The base model beside them has the tools' schemas in its prompt, as it is served without adapters. Executes the
gold plans on the real server, prints a table and writes it to build/train/<toolset>/<requests>.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from pathlib import Path

from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.prompts import answer_label
from services.shared.contracts.tools import sha256_of
from trainer.__main__ import make_plan
from trainer.command import status_of
from trainer.dataset import asked
from trainer.episodes import read_rows, write_rows
from trainer.figures import figures
from trainer.pipeline import Plan, decisions_of, outcomes_on
from trainer.progress import Bar, progress
from trainer.publish import serving
from trainer.report import table
from trainer.similarity import clusters
from trainer.training import load_base
from trainer.trajectories import Trajectory, write_trajectories

HERE = Path(__file__).parent / "heldout"
REQUESTS = ("everyday", "documents", "goals")


def run(plan: Plan, requests: str, store: Path, train: Path | None, bar: Bar) -> str:
    """The figures on one of REQUESTS, as a table.

    Raises:
        LookupError: the toolset has no such requests, or the store serves nothing that fits.
    """
    source = HERE / f"{plan.toolset}_{requests}.jsonl"
    if not source.exists():
        raise LookupError(f"there is no {source}; write one, a trainer.episodes.Episode per line")
    known = serving(plan.origin, store)
    if known is None:
        raise LookupError(f"{store} serves no adapters of {plan.toolset} that fit this base model, template and toolset")
    rows = plan.work / "trajectories.jsonl"
    with bar(f"{requests} requests on the server") as tick:
        asyncio.run(write_trajectories(plan.toolset, plan.toolsets_dir, {source: rows}, tick))
    fresh, known_already = unlike(list(read_rows(rows, Trajectory)), list(read_rows(train, Trajectory)) if train else [])
    write_rows(rows, fresh)
    found = decisions_of(rows, plan.tools)
    base = load_base(plan.model_dir)
    rows_and_model = [[one.trajectory, one.turn] for one in found], base_fingerprint(plan.model_dir)
    identity = sha256_of(rows_and_model)[:8]
    who = sha256_of([one.folder.name for one in known.adapters])[:8]
    after = outcomes_on(plan, base, known.adapters, known.activation, found, f"{who}_{identity}", bar)
    alone = replace(plan, profile=replace(plan.profile, prompt_profile="full"))
    before = outcomes_on(alone, base, [], None, found, f"base_{identity}", bar)
    numbers = figures(after, before, answer_label(plan.tools), tools=[tool.name for tool in plan.tools])
    numbers |= {"conversations": len(fresh), "left_out": known_already}
    (plan.work.parent / f"{requests}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    return f"{len(fresh)} conversations; {known_already} left out because training has nearly the same.\n{table(numbers)}"


def unlike(rows: list[Trajectory], training: list[Trajectory]) -> tuple[list[Trajectory], int]:
    """The rows whose questions no row of the training resembles, and how many others there are."""
    found = clusters([asked(row) for row in (*training, *rows)])
    taught = set(found[: len(training)])
    fresh = [row for cluster, row in zip(found[len(training) :], rows, strict=True) if cluster not in taught]
    return fresh, len(rows) - len(fresh)


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(prog="python -m trainer.handwritten", description=__doc__)
    parser.add_argument("--toolset", required=True)
    parser.add_argument("--store", type=Path, required=True, help="the adapter store whose release is asked")
    parser.add_argument("--requests", choices=REQUESTS, default=REQUESTS[0], help="which of the sets by hand")
    parser.add_argument("--train", type=Path, help="the rows it was trained on")
    parser.add_argument("--model", type=Path, default=Path(".run/models/smollm2-135m-instruct"))
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--work", type=Path, default=Path("build/train"))
    args = parser.parse_args()
    numbers = dict.fromkeys(("seed", "episodes", "epochs", "evaluated"), 0)
    fields = {"profile": "small", **numbers, "alora": False, "joint": False, "teacher": False, "conversations": []}
    plan = make_plan(argparse.Namespace(**vars(args), **fields))
    plan = replace(plan, work=args.work / args.toolset / args.requests)
    plan.work.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        print(run(plan, args.requests, args.store, args.train, bar))


if __name__ == "__main__":
    raise SystemExit(status_of(main))
