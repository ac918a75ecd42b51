"""All steps in order, none of them twice: what has left its result behind is taken as done."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from services.shared.contracts.prompts import answer_label
from services.shared.contracts.tools import JsonObject, Tool, sha256_of
from trainer.at_once import at_once
from trainer.dataset import HELDOUT_TRAJECTORIES, REPORT, heldout_of, write_dataset
from trainer.episodes import read_rows, write_rows
from trainer.evaluate import Prompts, select_all, write_all
from trainer.figures import Outcome, figures, read_outcomes
from trainer.importing import finished
from trainer.metrics import TrainMetrics
from trainer.profiles import Profile
from trainer.progress import Bar
from trainer.publish import GateRefused, Origin, Trained, publish, roles_of, serving, verdict
from trainer.queries import EPISODES, HELDOUT, write_queries
from trainer.report import TOO_LONG, table, write_report
from trainer.rows import Decision, TrainRow, arguments_row, balanced, decisions, merged, selection_row, thinned
from trainer.teacher import teach
from trainer.teacher_client import TeacherSettings
from trainer.timings import timed
from trainer.training import Job, load_base, train, wearing
from trainer.trajectories import TRAJECTORIES, Drop, Trajectory, drops_of, write_trajectories

# What the driver may stop after.
Step = Literal["training", "evaluate", "publish"]


@dataclass(frozen=True)
class Plan:
    """What to train from, with what, and where the work is kept. `teacher`: a larger model brings the training conversations.

    `conversations` are files of finished ones, in the place of all that would be written and executed. `evaluated` is the number
    of held-out conversations. `activation` are the tokens from which activated LoRA acts. `begin` are the adapters whose training
    goes on; a new one without its like among them begins fresh. `only` these are trained, by alias, and the rest of `begin`
    serves on beside them; empty for all. `command` is what the release says it was made by.
    """

    toolset: str
    tools: Sequence[Tool]
    toolsets_dir: Path
    model_dir: Path
    work: Path
    profile: Profile
    seed: int
    activation: Sequence[int] | None = None
    joint: bool = False
    teacher: bool = False
    conversations: Sequence[Path] = ()
    evaluated: int = 150
    begin: Sequence[Trained] = ()
    only: Sequence[str] = ()
    command: str = ""

    @property
    def origin(self) -> Origin:
        """What is said of all its adapters."""
        return Origin(
            self.toolset, self.tools, self.model_dir, self.profile.prompt_profile, self.seed, activation=self.activation
        )

    @property
    def prompts(self) -> Prompts:
        """How decisions are put to the model."""
        return Prompts.load(self.model_dir, self.tools, self.profile.prompt_profile, self.activation)


def run(plan: Plan, store: Path, bar: Bar, metrics: TrainMetrics, *, force: bool, until: Step = "publish") -> str:
    """The whole pipeline, or as far as `until`; what came of it.

    Raises:
        GateRefused, TrainingFailed, TeacherDown, AgentFluxError, LookupError, RuntimeError, OSError: as names and messages say.
    """
    plan.work.mkdir(parents=True, exist_ok=True)
    with (plan.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another training is at work in {plan.work}") from error
        return _run(plan, store, bar, metrics, force=force, until=until)


def _run(plan: Plan, store: Path, bar: Bar, metrics: TrainMetrics, *, force: bool, until: Step) -> str:
    prepare(plan, bar)
    metrics.kept(json.loads((plan.work / REPORT).read_text()))
    if not decisions_of(heldout_of(plan.work), plan.tools, plan.evaluated):
        raise LookupError(f"nothing to evaluate on: no conversation is held out in {heldout_of(plan.work)}; give more of them")
    with bar("load"):
        base = load_base(plan.model_dir, "cuda" if torch.cuda.is_available() else "cpu")
    trained = train_all(plan, base, bar, metrics)
    if until == "training":
        return "".join(f"{one.role}: {one.folder}\n" for one in trained)
    numbers = evaluate(plan, base, trained, store, bar)
    report = f"The report is {plan.work / 'report.html'}.\n"
    if until == "evaluate":
        return f"{table(numbers)}\n{report}"
    with bar("publish"):
        try:
            release = publish(trained, plan.origin, numbers, store, force=force, note=plan.command)
        except GateRefused as error:
            raise GateRefused(f"{error}\n{report.rstrip()}") from error
    return f"{table(numbers)}\nrelease {release.number} of {plan.toolset}: {', '.join(release.adapters.names)}\n{report}"


def prepare(plan: Plan, bar: Bar) -> None:
    """Steps 1 to 3, up to train.jsonl."""
    work = plan.work
    if not plan.conversations:
        _have_conversations(plan, bar)
    if not (work / REPORT).exists():
        with timed(work, "dataset") as timing, bar("dataset"):
            rows = finished(plan.conversations, plan.tools) if plan.conversations else _recorded(work / TRAJECTORIES)
            write_dataset(timing.counting(rows), work / HELDOUT_TRAJECTORIES, work)


def _have_conversations(plan: Plan, bar: Bar) -> None:
    """Steps 1 and 2: queries, and what comes of them on the real server."""
    work = plan.work
    if not (work / HELDOUT).exists():
        with timed(work, "queries") as timing, bar("queries"):
            counts = {"count": 0 if plan.teacher else plan.profile.episodes, "heldout": plan.profile.heldout}
            write_queries(plan.toolset, work, **counts, seed=plan.seed, tools=plan.tools)
            timing.samples = sum(counts.values())
    if plan.teacher and not (work / TRAJECTORIES).exists():
        with timed(work, "teacher") as timing:
            per_tool = max(1, plan.profile.episodes // (len(plan.tools) + 1))
            report = asyncio.run(
                teach(plan.toolset, plan.toolsets_dir, work, TeacherSettings(), per_tool=per_tool, seed=plan.seed, bar=bar)
            )
            timing.samples = int(report["trajectories"])
    files = {HELDOUT: HELDOUT_TRAJECTORIES} | ({} if plan.teacher else {EPISODES: TRAJECTORIES})
    if missing := {work / source: work / target for source, target in files.items() if not (work / target).exists()}:
        with timed(work, "trajectories") as timing, bar("trajectories") as tick:

            def shown(done: int, total: int) -> None:
                tick(done, total)
                timing.samples = done

            asyncio.run(write_trajectories(plan.toolset, plan.toolsets_dir, missing, shown))


def _recorded(path: Path) -> Iterator[Trajectory | Drop]:
    if drops_of(path).exists():
        yield from read_rows(drops_of(path), Drop)
    yield from read_rows(path, Trajectory)


def jobs(plan: Plan) -> list[Job]:
    """Which adapters to train, each with its rows. Rows that are too long are counted in too_long.json.

    Raises:
        LookupError: nothing is left to learn from, or an adapter that the plan asks for is none of these.
    """
    found = _jobs(plan)
    names = [job.alias for job in found]
    if unknown := set(plan.only).difference(names):
        raise LookupError(f"there is no adapter {', '.join(sorted(unknown))} to train; there are {', '.join(names)}")
    return [job for job in found if not plan.only or job.alias in plan.only]


def _jobs(plan: Plan) -> list[Job]:
    how, found = plan.prompts, decisions_of(plan.work / "train.jsonl", plan.tools)
    if not (plan.teacher or plan.conversations):
        # What a grammar writes there is plenty of; what somebody said or paid for is learned whole.
        found = thinned(found, plan.profile.followed)
    selections = [selection_row(how.renderer, one, how.tools, how.profile) for one in balanced(found)]
    written = [row for one in found if (row := arguments_row(how.renderer, how.tokenizer, one, how.tools, how.profile))]
    short = [row for row in (*selections, *written) if len(row.ids) <= plan.profile.max_tokens]
    all_rows, kept = (Counter(row.role for row in rows) for rows in ((*selections, *written), short))
    (plan.work / TOO_LONG).write_text(json.dumps(dict(all_rows - kept)) + "\n")
    selections, written = ([row for row in short if row.role == role] for role in ("selection", "arguments"))
    if not selections:
        raise LookupError(f"no row in {plan.work} teaches a selection; {plan.work / REPORT} says what was dropped, and why")
    if plan.joint:
        return [Job("joint", "joint", None, _rows(plan, short))]
    writers = [Job("joint", "joint", None, _rows(plan, written))] if written else []
    if plan.profile.argument_adapters == "per_tool":
        by_tool = {tool.name: [row for row in written if row.label == tool.name] for tool in plan.tools}
        writers = [Job(name, "arguments", name, _rows(plan, rows)) for name, rows in by_tool.items() if rows]
    return [Job("select", "selector", None, _rows(plan, selections)), *writers]


def _rows(plan: Plan, rows: Sequence[TrainRow]) -> list[TrainRow]:
    # An activated adapter acts on one turn only, so there each turn stays a row of its own.
    return list(rows) if plan.activation else merged(rows)


def decisions_of(path: Path, tools: Sequence[Tool], count: int | None = None) -> list[Decision]:
    """Every decision of the first `count` trajectories of a file."""
    rows = list(read_rows(path, Trajectory))[:count]
    return [found for row in rows for found in decisions(row.id, row.kind, row.messages, tools, row.mistakes, row.accepted)]


def train_all(plan: Plan, base: Any, bar: Bar, metrics: TrainMetrics) -> list[Trained]:
    """Step 4: every adapter over the one base; those that are not trained are given as they serve."""
    found = jobs(plan)
    metrics.rows({job.alias: len(job.rows) for job in found}, json.loads((plan.work / TOO_LONG).read_text()))
    # Dropout draws from a random state that all threads share: side by side, the same seed would not give the same adapter.
    most = 1 if plan.profile.dropout else _side_by_side(base)
    trained = at_once([partial(_train_one, plan, base, metrics, job) for job in found], bar, most)
    learned = {(one.role, one.tool) for one in trained}
    return [*trained, *(one for one in plan.begin if plan.only and (one.role, one.tool) not in learned)]


def _train_one(plan: Plan, base: Any, metrics: TrainMetrics, job: Job, bar: Bar) -> Trained:
    known = next((one for one in plan.begin if (one.role, one.tool) == (job.role, job.tool)), None)
    with timed(plan.work, f"train {job.alias}") as timing, bar(f"train {job.alias}") as tick:

        def shown(step: int, steps: int, loss: float, batch: Sequence[TrainRow]) -> None:
            tokens = sum(len(row.ids) for row in batch)
            tick(step, steps)
            metrics.batch(job.alias, tokens, loss)
            timing.samples += len(batch)
            timing.tokens += tokens

        folder = train(
            base,
            job,
            plan.profile,
            plan.work,
            seed=plan.seed,
            activation=plan.activation,
            begin=known.folder if known else None,
            tick=shown,
        )
    return Trained(folder, job.role, job.tool, plan.profile.rank, job.data_sha256, known.folder.name if known else None)


def _side_by_side(base: Any) -> int:
    """How many steps may use the base model at a time: a GPU is filled by one, and two are what memory is planned for."""
    return 1 if base.device.type == "cuda" else 2


def evaluate(plan: Plan, base: Any, trained: Sequence[Trained], store: Path, bar: Bar) -> JsonObject:
    """Step 5: the base model, the adapters that serve now, and the new ones, on the same held-out decisions."""
    found = decisions_of(heldout_of(plan.work), plan.tools, plan.evaluated)
    known = serving(plan.origin, store)
    who: list[tuple[str, Sequence[Trained], Sequence[int] | None]] = [("base", [], None), ("new", trained, plan.activation)]
    if known:
        name = f"published_{sha256_of([one.folder.name for one in known.adapters])[:8]}"
        who.append((name, known.adapters, known.activation))
    steps = [partial(outcomes_on, plan, base, adapters, activation, found, name) for name, adapters, activation in who]
    before, after, *published = at_once(steps, bar, _side_by_side(base))
    answer = answer_label(plan.tools)
    numbers = figures(
        after, before, answer, published=published[0] if published else None, tools=[tool.name for tool in plan.tools]
    )
    write_report(plan.work, f"Adapters of {plan.toolset}", answer, numbers, after, verdict(numbers, roles_of(trained)))
    return numbers


def outcomes_on(
    plan: Plan,
    base: Any,
    adapters: Sequence[Trained],
    activation: Sequence[int] | None,
    found: Sequence[Decision],
    who: str,
    bar: Bar,
) -> list[Outcome]:
    """What the base model with `adapters` (none: alone) decides on these decisions; kept in the work folder under `who`."""
    path = plan.work / f"outcomes_{who}.jsonl"
    if path.exists() and len(known := read_outcomes(path)) == len(found):
        return known
    how = replace(plan.prompts, activation=activation)
    with timed(plan.work, f"evaluate {who}") as timing:
        with bar(f"selection, {who}") as tick:
            outcomes = select_all(wearing(base, _folder(adapters, "selector")), how, found, tick)
        for tools, folder in _writers(plan, adapters):
            mine = [i for i, decision in enumerate(found) if decision.label in tools]
            with bar(f"arguments, {who}") as tick:
                written = write_all(wearing(base, folder), how, [outcomes[i] for i in mine], [found[i] for i in mine], tick)
            for i, outcome in zip(mine, written, strict=True):
                outcomes[i] = outcome
        timing.samples = len(found)
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
