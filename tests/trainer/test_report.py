"""What the report shows, from whatever a training left behind, and that other people's words stay words."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.trainer.outcomes_of import ANSWER, TOOLS, outcomes
from trainer.figures import Outcome, figures
from trainer.report import combined, combined_table, table, write_report
from trainer.timings import timed

EVIL = "<script>alert(1)</script>|\n![x](http://x.example)\ud800\x07"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "dataset.json").write_text(
        json.dumps({"trajectories": {"train": 9, "valid": 1}, "dropped": {"duplicate": 7, "leaks": 2}, "rare_tools": ["tag"]})
    )
    (tmp_path / "too_long.json").write_text('{"selection": 31, "arguments": 5}')
    steps = "".join(json.dumps({"step": step, "loss": 3 / step}) + "\n" for step in (*range(1, 1001), 999))
    (tmp_path / "select.curve.jsonl").write_text(steps + '{"step": 1001, "lo')
    for _ in range(2):
        with timed(tmp_path, "train select") as spent:
            spent.samples, spent.tokens = 5000, 1234
    return tmp_path


def written(work: Path, rows: list[Outcome], reasons: list[str] | None = None) -> tuple[str, str]:
    numbers = figures(rows, outcomes(0.2), ANSWER, published=outcomes(0.6), tools=[*TOOLS, "never_called"])
    write_report(work, f"files {EVIL}", ANSWER, numbers, rows, reasons)
    return (work / "report.md").read_text(), (work / "report.html").read_text()


class Page(HTMLParser):
    """The elements of a page, and that each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_both_forms_show_everything(work: Path) -> None:
    for text in written(work, outcomes(0.9), []):
        for shown in (
            "The gate lets these adapters pass", "selection first turn", "end to end first turn", "never_called", "duplicate",
            "31 rows of selection", "train select", "Expected calibration error", "question ", "1000",
        ):  # fmt: skip
            assert shown in text, shown
    assert json.loads((work / "report.json").read_text())["end_to_end"]["of"] == 120


def test_the_page_is_whole_and_needs_nothing_else(work: Path) -> None:
    _, text = written(work, outcomes(0.9))
    parsed = Page(text)
    assert parsed.open == []
    # A bar for each figure and two for each tool but one, the matrix, the calibration, the curve.
    assert parsed.tags.count("svg") == 12 + 5 + 3
    assert "script" not in parsed.tags
    assert not {"src", "href", "onclick", "onload"} & {name for name, _ in parsed.attributes}


def test_what_users_said_is_not_markup(work: Path) -> None:
    rows = outcomes(0.2)
    rows = [row.model_copy(update={"asked": EVIL, "wanted": {"path": EVIL}, "written": EVIL}) for row in rows]
    told, text = written(work, rows, [f"because {EVIL}"])
    for form in (told, text):
        assert "<script" not in form
        assert "&lt;script&gt;" in form
    assert "script" not in Page(text).tags
    assert "![x]" not in told
    cells = [line.replace("\\|", "").count("|") for line in told.splitlines() if "alert" in line and line.startswith("|")]
    assert set(cells) == {2, 7}


def test_twenty_mistakes_are_drawn_and_always_the_same(work: Path) -> None:
    told, _ = written(work, outcomes(0.5))
    mistakes = told.partition("## Mistakes")[2]
    assert mistakes.count("question ") == 20
    assert written(work, outcomes(0.5))[0] == told


def test_failures_are_counted_and_said(work: Path) -> None:
    rows = outcomes(1.0)
    rows[5] = rows[5].model_copy(update={"selected": None, "error": "a prompt of 9000 tokens"})
    told, _ = written(work, rows)
    assert "120 held-out decisions; 1 failed." in told
    assert "a prompt of 9000 tokens" in told


def test_a_folder_with_nothing_in_it_and_no_rows_make_a_report(tmp_path: Path) -> None:
    write_report(tmp_path, "empty", ANSWER, figures([], [], ANSWER, tools=TOOLS), [])
    assert "No held-out row calls list_files, read_file, tag." in (tmp_path / "report.md").read_text()
    assert Page((tmp_path / "report.html").read_text()).open == []


def test_a_step_that_was_gone_on_with_did_and_took_the_sum(work: Path) -> None:
    (work / "timings.jsonl").write_text(
        '{"step": "train", "seconds": 2, "samples": 4, "tokens": 10, "peak_rss_bytes": 1073741824}\n'
        '{"step": "train", "seconds": 3, "samples": 2, "tokens": 40, "peak_rss_bytes": 5}\n{"st'
    )
    assert "| train | 5.0 | 6 | 1.20 | 10 | 1.00 |" in written(work, outcomes(0.9))[0]


def test_the_table_of_figures_has_a_row_each() -> None:
    text = table(figures(outcomes(0.9), outcomes(0.2), ANSWER))
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 2 + 12
    assert "published" not in text


def test_seeds_are_combined_to_mean_worst_and_spread() -> None:
    reports = [figures(outcomes(skill), outcomes(0.1), ANSWER) for skill in (0.5, 0.7, 0.9)]
    numbers = combined(reports)
    shares = [report["end_to_end"]["share"] for report in reports]
    assert numbers["end_to_end"]["mean"] == pytest.approx(sum(shares) / 3, abs=1e-4)
    assert numbers["end_to_end"]["worst"] == min(shares)
    assert numbers["end_to_end"]["spread"] == pytest.approx(max(shares) - min(shares))
    assert numbers["end_to_end"]["largest_p"] == max(report["end_to_end"]["p"] for report in reports)
    # Of errors the largest is the worst.
    assert numbers["calibration_error"]["worst"] == max(report["calibration_error"] for report in reports)
    assert "| end to end |" in combined_table(numbers)


@pytest.mark.real
def test_seeds_are_combined_at_the_command_line(tmp_path: Path) -> None:
    for seed in range(2):
        numbers = figures(outcomes(0.9, seed=seed), outcomes(0.1), ANSWER)
        (tmp_path / f"{seed}.json").write_text(json.dumps(numbers))
    command = [sys.executable, "-m", "trainer.report", *map(str, sorted(tmp_path.glob("*.json")))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("| figure | mean | worst | spread |")
