"""The evaluation report of one training, as Markdown and as a page that needs nothing else; and several seeds in one table.

python -m trainer.report seed0/report.json seed1/report.json seed2/report.json
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.shared.contracts.tools import JsonObject
from trainer.charts import calibration_chart, confusion_grid, curve_chart, interval_bar
from trainer.dataset import REPORT as DATASET
from trainer.figures import Outcome
from trainer.pages import Section, markdown, markdown_table, page
from trainer.statistics import bins_of
from trainer.timings import CURVE, TIMINGS, Timing, read_curve, read_timings

# Training rows that were longer than the profile allows, by role.
TOO_LONG = "too_long.json"
NUMBERS, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
_MISTAKES = 20
# A page of a hundred thousand steps would be slow, and show nothing more.
_MOST_POINTS = 400


@dataclass(frozen=True)
class Material:
    """What a report is made of. `numbers` are `figures(...)`; `reasons` why the gate refuses, None before it was asked."""

    title: str
    answer: str
    numbers: JsonObject
    outcomes: Sequence[Outcome]
    reasons: Sequence[str] | None = None
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    dataset: JsonObject = field(default_factory=dict)
    too_long: JsonObject = field(default_factory=dict)
    timings: Sequence[Timing] = ()


def write_report(
    work: Path,
    title: str,
    answer: str,
    numbers: JsonObject,
    outcomes: Sequence[Outcome],
    reasons: Sequence[str] | None = None,
) -> None:
    """Writes report.json, report.md and report.html in `work`, with the curves, the timings and the counts that are there."""
    dataset, too_long = (json.loads(path.read_text()) if path.exists() else {} for path in (work / DATASET, work / TOO_LONG))
    curves = {path.name.removesuffix(f".{CURVE}"): read_curve(path) for path in sorted(work.glob(f"*.{CURVE}"))}
    material = Material(title, answer, numbers, outcomes, reasons, curves, dataset, too_long, read_timings(work / TIMINGS))
    parts = sections(material)
    for name, text in (
        (NUMBERS, json.dumps(numbers, indent=2) + "\n"),
        (MARKDOWN, markdown(material.title, parts)),
        (PAGE, page(material.title, parts)),
    ):
        staging = work / f"{name}.staging"
        staging.write_text(text, encoding="utf-8")
        staging.replace(work / name)


def sections(material: Material) -> list[Section]:
    """The report, from the verdict to single mistakes."""
    numbers, outcomes = material.numbers, material.outcomes
    found = [
        _verdict(material),
        _figures(numbers),
        _per_tool(numbers),
        _confusion(outcomes),
        Section(
            "Calibration of the vote",
            f"{_calibration(numbers)}. On the diagonal, votes are as often right as sure.",
            ["confidence", "votes", "sure", "right"],
            [
                [f"{at / 10:.0%} to {(at + 1) / 10:.0%}", str(one.count), f"{one.sure:.0%}", f"{one.right:.0%}"]
                for at, one in enumerate(bins_of(*_votes(outcomes)))
                if one
            ],
            [("", calibration_chart(bins_of(*_votes(outcomes))))],
        ),
        Section(
            "Training",
            "Mean loss per target.",
            ["adapter", "steps", "first loss", "last loss"],
            [[alias, str(curve[-1][0]), f"{curve[0][1]:.3f}", f"{curve[-1][1]:.3f}"] for alias, curve in _drawn(material)],
            [(alias, curve_chart(curve)) for alias, curve in _drawn(material)],
        ),
        _time(material.timings),
        _data(material.dataset, material.too_long),
        _mistakes(outcomes),
    ]
    return [section for section in found if section.rows or section.note]


def table(numbers: JsonObject) -> str:
    """The figures in Markdown."""
    section = _figures(numbers)
    return f"{markdown_table(section)}\n\n{_calibration(numbers)}.\n"


def _calibration(numbers: JsonObject) -> str:
    low, high = numbers["calibration_interval"]
    return f"Expected calibration error of the vote: {numbers['calibration_error']:.1%} ({low:.1%} to {high:.1%})"


def _verdict(material: Material) -> Section:
    total = f"{len(material.outcomes)} held-out decisions; {sum(row.error is not None for row in material.outcomes)} failed."
    if material.reasons is None:
        return Section("Summary", total)
    verdict = "The gate refuses these adapters." if material.reasons else "The gate lets these adapters pass."
    return Section("Summary", f"{verdict} {total}", ["reason"] if material.reasons else [], [[why] for why in material.reasons])


def _figures(numbers: JsonObject) -> Section:
    entries = {name.replace("_", " "): entry for name, entry in numbers.items() if isinstance(entry, dict) and "share" in entry}
    against = any("published" in entry for entry in entries.values())
    header = ["figure", "right", "share", "", "95 % interval", "base model", "McNemar p"]
    return Section(
        "Figures",
        "Paired on the same rows; an error counts as wrong. Given the gold tool: arguments. Ticks in the bars: "
        + ("the base model, and the published adapters." if against else "the base model."),
        [*header, *(["published", "McNemar p (published)"] if against else [])],
        [[name, *_shown(entry), *(_shown_published(entry) if against else [])] for name, entry in entries.items()],
    )


def _shown(entry: JsonObject) -> list[str]:
    if not entry["of"]:
        return ["0/0", "no rows", "", "", "", ""]
    marks = [entry["base"], *([entry["published"]] if "published" in entry else [])]
    bar = interval_bar(entry["share"], entry["low"], entry["high"], marks)
    interval = f"{entry['low']:.1%} to {entry['high']:.1%}"
    return [
        f"{entry['right']}/{entry['of']}",
        f"{entry['share']:.1%}",
        bar,
        interval,
        f"{entry['base']:.1%}",
        f"{entry['p']:.2g}",
    ]


def _shown_published(entry: JsonObject) -> list[str]:
    return [f"{entry['published']:.1%}", f"{entry['p_published']:.2g}"] if entry["of"] and "published" in entry else ["", ""]


def _per_tool(numbers: JsonObject) -> Section:
    tools: JsonObject = numbers.get("per_tool", {})
    rows = [[name, *_shown(entry["selection"])[:5], *_shown(entry["arguments_exact"])[:3]] for name, entry in tools.items()]
    none = [name for name, entry in tools.items() if not entry["selection"]["of"]]
    header = ["tool", "selected", "share", "", "95 % interval", "base model", "arguments exact", "share", ""]
    return Section("Each tool", f"No held-out row calls {', '.join(none)}." if none else "", header, rows)


def _confusion(outcomes: Sequence[Outcome]) -> Section:
    counts = Counter((row.gold, row.selected or "(failed)") for row in outcomes)
    labels = sorted({label for pair in counts for label in pair})
    wrong = [[gold, label, str(count)] for (gold, label), count in counts.most_common() if gold != label]
    return Section(
        "Confusion matrix",
        "Gold labels downwards, selected ones across.",
        ["gold", "selected instead", "times"],
        wrong[:_MISTAKES],
        [("", confusion_grid(labels, counts))],
    )


def _votes(outcomes: Sequence[Outcome]) -> tuple[list[float], list[bool]]:
    return [row.sure for row in outcomes], [row.is_right for row in outcomes]


def _drawn(material: Material) -> list[tuple[str, Sequence[tuple[int, float]]]]:
    # The last point is what the training came to.
    return [
        (alias, [*curve[: -1 : 1 + len(curve) // _MOST_POINTS], curve[-1]]) for alias, curve in material.curves.items() if curve
    ]


def _time(timings: Sequence[Timing]) -> Section:
    def rate(count: int, seconds: float, digits: int) -> str:
        return f"{count / seconds:,.{digits}f}" if count and seconds else ""

    header = ["step", "seconds", "samples", "samples/s", "tokens/s", "peak RSS so far, GiB"]
    rows = [
        [
            one.step,
            f"{one.seconds:,.1f}",
            f"{one.samples:,}" if one.samples else "",
            rate(one.samples, one.seconds, 2),
            rate(one.tokens, one.seconds, 0),
            f"{one.peak_rss_bytes / 2**30:.2f}",
        ]
        for one in timings
    ]
    note = "Samples are conversations, then rows that were learned, then decisions. What a kill cut off is counted nowhere."
    return Section("Time and memory", note, header, rows)


def _data(dataset: JsonObject, too_long: JsonObject) -> Section:
    sizes = ", ".join(f"{count} {part}" for part, count in dataset.get("trajectories", {}).items())
    rare = ", ".join(dataset.get("rare_tools", [])) or "none"
    note = f"Trajectories: {sizes}. Tools with few rows in train: {rare}." if dataset else ""
    rows = [[rule, f"{count} trajectories"] for rule, count in dataset.get("dropped", {}).items()]
    rows += [["longer than the profile allows", f"{count} rows of {role}"] for role, count in too_long.items()]
    return Section("Data", note, ["dropped because", "how much"], rows)


def _mistakes(outcomes: Sequence[Outcome]) -> Section:
    wrong = [row for row in outcomes if not row.is_whole]
    some = random.Random(0).sample(wrong, min(_MISTAKES, len(wrong)))

    def gold(row: Outcome) -> str:
        return row.gold if row.wanted is None else f"{row.gold} {json.dumps(row.wanted, ensure_ascii=False)}"

    return Section(
        "Mistakes",
        f"{len(some)} of {len(wrong)}, drawn at random. Arguments are those written for the gold tool.",
        ["row", "the user said", "gold", "selected", "sure", "written"],
        [[row.row, row.asked, gold(row), row.selected or row.error or "", f"{row.sure:.0%}", row.written or ""] for row in some],
    )


def combined(reports: Sequence[JsonObject]) -> JsonObject:
    """Of the numbers of several seeds, per figure: mean, worst, spread (largest less smallest), and the largest p."""
    found: JsonObject = {}
    for name, first in reports[0].items():
        if isinstance(first, dict) and "share" in first:
            shares = [report[name]["share"] for report in reports]
            found[name] = _summary(shares, min(shares)) | {"largest_p": max(report[name]["p"] for report in reports)}
        elif isinstance(first, float):
            found[name] = _summary(errors := [report[name] for report in reports], max(errors))
    return found


def _summary(values: Sequence[float], worst: float) -> JsonObject:
    spread = round(max(values) - min(values), 4)
    return {"mean": round(sum(values) / len(values), 4), "worst": worst, "spread": spread, "seeds": len(values)}


def combined_table(numbers: JsonObject) -> str:
    """Several seeds in Markdown."""
    rows = [
        [name.replace("_", " "), *(f"{entry[key]:.1%}" for key in ("mean", "worst", "spread")), f"{entry.get('largest_p', '')}"]
        for name, entry in numbers.items()
    ]
    return markdown_table(Section("", header=["figure", "mean", "worst", "spread", "largest p against base"], rows=rows)) + "\n"


def main() -> None:
    """Several seeds in one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="report.json of each seed")
    reports = [json.loads(path.read_text()) for path in parser.parse_args().reports]
    print(combined_table(combined(reports)), end="")


if __name__ == "__main__":
    main()
