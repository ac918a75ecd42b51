"""Step 3, dataset: lets through what may teach, and splits it so that no question of one part has its like in another.

    python -m trainer.dataset --trajectories trajectories.jsonl --heldout heldout_trajectories.jsonl --out build/train/filesystem

Writes train.jsonl, valid.jsonl and test.jsonl (80/10/10), drops.jsonl with rule and row, and dataset.json, the report.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.shared.contracts.tools import sha256_of
from trainer.command import status_of
from trainer.episodes import read_rows, write_rows
from trainer.gates import calls_of, first_flaw
from trainer.similarity import clusters, normal
from trainer.trajectories import Drop, Trajectory

HELDOUT_TRAJECTORIES = "heldout_trajectories.jsonl"
PARTS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)
REPORT = "dataset.json"
DROPS = "drops.jsonl"
# Fewer trajectories than this in which a tool is called are worth a line in the report.
RARE = 20


@dataclass
class Dataset:
    """The three parts, and what was left out."""

    parts: dict[str, list[Trajectory]]
    drops: list[Drop] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """Counts by part, by rule and by tool."""
        tools = {
            part: Counter(call["function"]["name"] for row in rows for call in calls_of(row)) for part, rows in self.parts.items()
        }
        offered = {tool["function"]["name"] for rows in self.parts.values() for row in rows[:1] for tool in row.tools}
        return {
            "trajectories": {part: len(rows) for part, rows in self.parts.items()},
            "dropped": dict(Counter(drop.rule for drop in self.drops)),
            "calls": {part: dict(sorted(counts.items())) for part, counts in tools.items()},
            "rare_tools": sorted(name for name in offered if tools["train"][name] < RARE),
        }


def build(rows: Iterable[Trajectory | Drop], heldout: Sequence[Trajectory]) -> Dataset:
    """Gates, deduplication, split. `heldout` rows are only looked at: whatever resembles one may not teach.

    A row that was left out before it came here is only counted.
    """
    kept: list[Trajectory] = []
    drops: list[Drop] = []
    seen: dict[str, str] = {}
    for row in rows:
        if isinstance(row, Drop):
            drops.append(row)
            continue
        flaw = first_flaw(row)
        if flaw is None and (key := _key(row)) in seen:
            flaw = "duplicate", f"asks and does the same as {seen[key]}"
        elif flaw is None:
            seen[key] = row.id
        drops += [_drop(row, *flaw)] if flaw else []
        kept += [] if flaw else [row]
    found = clusters([asked(row) for row in (*heldout, *kept)])
    reserved = set(found[: len(heldout)])
    safe: list[tuple[int, Trajectory]] = []
    for cluster, row in zip(found[len(heldout) :], kept, strict=True):
        if cluster in reserved:
            drops.append(_drop(row, "heldout", "resembles a held-out question"))
        else:
            safe.append((cluster, row))
    return Dataset(_split(safe), drops)


def _split(rows: Sequence[tuple[int, Trajectory]]) -> dict[str, list[Trajectory]]:
    """The parts, each row where its own words put it: another training on the same rows holds out the same ones."""
    # A cluster goes to one part as a whole, with the stratum of its first row; the first of a stratum goes to train.
    members: dict[int, list[Trajectory]] = defaultdict(list)
    for cluster, row in rows:
        members[cluster].append(row)
    strata: dict[str, list[list[Trajectory]]] = defaultdict(list)
    for group in members.values():
        strata[group[0].kind].append(group)
    parts: dict[str, list[Trajectory]] = {part: [] for part in PARTS}
    total = 0
    for _, groups in sorted(strata.items()):
        groups.sort(key=lambda group: min(map(_key, group)))
        total += sum(map(len, groups))
        for group in groups:
            # What a stratum is too small to give to a part, the next one owes it.
            lacks = {part: share * total - len(parts[part]) for part, share in zip(PARTS, SHARES, strict=True)}
            parts["train" if group is groups[0] else max(PARTS, key=lacks.__getitem__)] += group
    for part in PARTS[1:]:
        # So that whoever evaluates on the first so many has all kinds among them.
        parts[part].sort(key=_key)
    return parts


def asked(row: Trajectory) -> str:
    """What the user says in it, without what a copy may differ in."""
    return " / ".join(normal(str(message["content"])) for message in row.messages if message["role"] == "user")


def _key(row: Trajectory) -> str:
    return sha256_of([asked(row), [call["function"] for call in calls_of(row)]])


def _drop(row: Trajectory, rule: str, reason: str) -> Drop:
    row_sha256 = sha256_of(row.model_dump(mode="json"))
    return Drop(id=row.id, kind=row.kind, rule=rule, reason=reason, row_sha256=row_sha256)


def heldout_of(work: Path) -> Path:
    """The conversations to evaluate on: those of another grammar, or the test part where finished conversations were given."""
    other = work / HELDOUT_TRAJECTORIES
    return other if other.exists() else work / "test.jsonl"


def write_dataset(rows: Iterable[Trajectory | Drop], heldout: Path, out: Path) -> dict[str, object]:
    """Writes the parts, and gives the report. `heldout` need not exist."""
    dataset = build(rows, list(read_rows(heldout, Trajectory)) if heldout.exists() else [])
    for part, part_rows in dataset.parts.items():
        write_rows(out / f"{part}.jsonl", part_rows)
    write_rows(out / DROPS, dataset.drops)
    report = dataset.report()
    # The report comes last and whole: where it is, this step is done.
    staging = out / f"{REPORT}.staging"
    staging.write_text(json.dumps(report, indent=2) + "\n")
    staging.replace(out / REPORT)
    return report


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = read_rows(args.trajectories, Trajectory)
    print(json.dumps(write_dataset(rows, args.heldout, args.out), indent=2))


if __name__ == "__main__":
    raise SystemExit(status_of(main))
