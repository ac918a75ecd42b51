"""Whether a log is whole: every record chained to the one before it, and every call with one start and one end.

What it cannot see is a log whose end was cut off between two records, or which was written anew from some record on: for that,
note the hash it prints and ask for it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from services.sandbox.trajectory import chain
from services.sandbox.trajectory.records import IDENTITY, record_of
from services.sandbox.trajectory.store import lines_of
from services.shared.contracts.tools import JsonObject

MAX_PROBLEMS = 20


@dataclass
class Report:
    """What was found. `head` is the hash of the last record; `in_flight` are the calls without an end, by their start."""

    records: int = 0
    calls: int = 0
    head: str = chain.GENESIS
    first: int = 0
    last: int = 0
    in_flight: dict[int, JsonObject] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)

    def blame(self, where: str, what: str) -> None:
        """Notes a problem; after a few, the rest is like them."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{where}: {what}")


def verify(paths: Sequence[Path]) -> Report:
    """Reads the files, oldest first."""
    report = Report()
    torn: dict[str, tuple[str, JsonObject]] = {}
    for path in paths:
        rows = 0
        for number, line in enumerate(lines_of(path), 1):
            where = f"{path}:{number}"
            if not line.endswith(b"\n"):
                torn[path.name] = (where, {"bytes": len(line), "sha256": sha256(line).hexdigest()})
                continue
            try:
                row = record_of(line)
            except ValueError as error:
                report.blame(where, f"not as it was written: {error}")
                continue
            _link(report, row, where, begins=not rows)
            _account(report, row, where, torn)
            rows += 1
    for where, _ in torn.values():
        report.blame(where, "the last line is torn, and no later start of the sandbox has recorded that")
    return report


def _link(report: Report, row: JsonObject, where: str, *, begins: bool) -> None:
    if not report.records:
        report.first = row["seq"]
        if row["seq"] == 1 and row["prev"] != chain.GENESIS:
            report.blame(where, "record 1 does not begin the chain")
    elif row["seq"] != report.last + 1 or row["prev"] != report.head:
        report.blame(where, f"record {row['seq']} does not follow record {report.last}: something between them is missing")
    if begins != (row["event"] == "open"):
        report.blame(where, "a file begins with one `open` record, and has no other")
    report.records += 1
    report.last, report.head = row["seq"], row["hash"]
    report.hashes.add(row["hash"])


def _account(report: Report, row: JsonObject, where: str, torn: dict[str, tuple[str, JsonObject]]) -> None:
    if row["event"] == "open":
        listed = {call["started"]: {key: call[key] for key in IDENTITY} for call in row["in_flight"]}
        if report.records > 1 and listed != report.in_flight:
            report.blame(where, "the calls in flight are not those that the records before it leave")
        report.in_flight = listed
        for end in row["torn"]:
            if end["file"] in torn and torn[end["file"]][1] == {"bytes": end["bytes"], "sha256": end["sha256"]}:
                del torn[end["file"]]
    elif row["event"] == "start":
        report.calls += 1
        report.in_flight[row["seq"]] = {key: row[key] for key in IDENTITY}
    elif report.in_flight.pop(row["started"], None) != {key: row[key] for key in IDENTITY}:
        report.blame(where, f"call {row['call_id']!r} has two ends, or an end without a start (record {row['started']})")
