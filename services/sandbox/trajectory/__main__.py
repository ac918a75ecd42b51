"""`python -m services.sandbox.trajectory` reads trajectory logs.

verify FILE…                      every record as it was written, every call with one start and one end
export FILE… --format --out DIR   trajectories for the trainer, or ATIF documents

FILE may be the log's directory. The exit status is 0 when all is well, 1 when not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from services.sandbox.trajectory.export import exported, to_atif, to_trainer
from services.sandbox.trajectory.records import tool_digest
from services.sandbox.trajectory.store import files_in
from services.sandbox.trajectory.verify import verify
from services.shared.contracts.tools import JsonObject, Tool


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.sandbox.trajectory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="is the log whole?")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--head", help="a hash that was noted earlier and has to be in the chain still")
    check.add_argument("--running", action="store_true", help="the sandbox is running: calls may be in flight")
    out = commands.add_parser("export", help="trajectories for others")
    out.add_argument("files", nargs="+", type=Path, metavar="FILE")
    out.add_argument("--format", choices=("trainer", "atif"), required=True)
    out.add_argument("--out", type=Path, required=True, help="directory to write to")
    toolsets = [Path("deploy/toolsets")]
    out.add_argument("--toolsets", nargs="+", type=Path, default=toolsets, metavar="DIR", help="where the tools are described")
    given = parser.parse_args(arguments)
    try:
        paths = [path for named in given.files for path in (files_in(named) if named.is_dir() else [named])]
        if not paths:
            raise ValueError(f"there is no log in {', '.join(map(str, given.files))}")
        return _verify(paths, given) if given.command == "verify" else _export(paths, given)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _verify(paths: list[Path], given: argparse.Namespace) -> int:
    report = verify(paths)
    problems = list(report.problems)
    if given.head and given.head not in report.hashes:
        problems.append(f"the chain does not contain {given.head}: it was cut off or written anew, or that file is gone")
    if not given.running:
        problems += [
            f"call {call['call_id']!r} ({call['toolset']}.{call['tool']}, record {started}) has no end"
            for started, call in list(report.in_flight.items())[:20]
        ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if report.first > 1:
        print(f"earlier files are gone: this begins at record {report.first}")
    print(f"{report.records} records, {report.calls} calls, {len(report.in_flight)} in flight; head {report.head}")
    return 1 if problems else 0


def _export(paths: list[Path], given: argparse.Namespace) -> int:
    export = exported(paths, _tools(given.toolsets), to_trainer if given.format == "trainer" else to_atif)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.format == "trainer":
        lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in export.documents.values()]
        (given.out / "trajectories.jsonl").write_text("".join(lines), encoding="utf-8")
    else:
        for key, document in export.documents.items():
            (given.out / f"{key}.json").write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    for reason, count in export.left_out.most_common():
        print(f"{count} trajectories left out: {reason}", file=sys.stderr)
    print(f"{len(export.documents)} trajectories in {given.out}")
    return 0 if export.documents else 1


def _tools(directories: list[Path]) -> dict[str, JsonObject]:
    found = {}
    for path in (path for directory in directories for path in sorted(directory.glob("*/tools.json"))):
        for entry in json.loads(path.read_text("utf-8")):
            tool = Tool(**entry["function"])
            found[tool_digest(tool)] = tool.openai()
    return found


if __name__ == "__main__":
    sys.exit(main())
