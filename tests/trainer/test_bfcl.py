"""Rows in the leaderboard's format: types, accepted values, the split, and what must never be trained on."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from services.shared.contracts.tools import JsonObject, Tool
from trainer.bfcl import VERSION, Row, gold, installed_data, part_of, read, tools_of, trajectory, write
from trainer.episodes import read_rows
from trainer.gates import first_flaw
from trainer.trajectories import Trajectory


def function(name: str = "shop.order", **properties: JsonObject) -> JsonObject:
    item: JsonObject = {"type": "string"}
    return {
        "name": name,
        "description": f"{name}.",
        "parameters": {"type": "dict", "properties": {"item": item, **properties}, "required": ["item", *properties]},
    }


def data(root: Path, category: str = "live_simple", count: int = 12, **more: Any) -> Path:
    questions, answers = [], []
    for i in range(count):
        row = {"id": f"{category}_{i}", "question": [[{"role": "user", "content": f"Order item{i}"}]], "function": [function()]}
        questions.append({**row, **more})
        answers.append({"id": f"{category}_{i}", "ground_truth": [{"shop.order": {"item": [f"item{i}"]}}]})
    (root / "possible_answer").mkdir(exist_ok=True, parents=True)
    for path, lines in ((root, questions), (root / "possible_answer", answers)):
        (path / f"BFCL_v4_{category}.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return root


@pytest.mark.parametrize("category", ["simple", "multiple", "parallel", "irrelevance", "live_irrelevance", "live_parallel"])
def test_what_is_for_evaluation_is_refused(tmp_path: Path, category: str) -> None:
    with pytest.raises(ValueError, match="for evaluation only"):
        read(data(tmp_path, category), ["live_simple", category])


def test_rare_functions_are_left_out(tmp_path: Path) -> None:
    data(tmp_path, "live_multiple", count=3)
    assert len(read(data(tmp_path, count=7))) == 10
    assert read(data(tmp_path, count=6)) == []


def test_every_row_is_one_call_of_one_part(tmp_path: Path) -> None:
    data(tmp_path / "data", "live_multiple", count=200, question=[[{"role": "user", "content": "The same, order item3"}]])
    report = write(data(tmp_path / "data", count=300), tmp_path / "out")
    parts = {part: list(read_rows(tmp_path / "out" / f"{part}.jsonl", Trajectory)) for part in ("train", "valid", "test")}
    assert {part: len(rows) for part, rows in parts.items()} == {part: report[part] for part in parts}
    assert sum(len(rows) for rows in parts.values()) == 500
    singles = {part: [row for row in rows if row.id.startswith("live_simple")] for part, rows in parts.items()}
    assert 180 < len(singles["train"]) < 240
    assert 15 < len(singles["valid"]) < 50
    # Two hundred times the same question: all of them in one part.
    assert sorted(len(rows) - len(singles[part]) for part, rows in parts.items()) == [0, 0, 200]
    row = singles["train"][0]
    assert (row.source, row.kind, first_flaw(row)) == ("bfcl", "shop_order", None)


def test_capitals_and_spaces_do_not_make_another_question() -> None:
    def asking(text: str) -> Trajectory:
        return Trajectory(id="x", source="bfcl", kind="k", messages=[{"role": "user", "content": text}], tools=[])

    for i in range(20):
        assert part_of(asking(f"Order item{i}!")) == part_of(asking(f" order  ITEM{i}"))


def test_the_tool_allows_what_any_of_its_variants_does() -> None:
    def row(name: str, **properties: JsonObject) -> Row:
        return Row(name, [], function(**properties), {})

    red, blue = {"type": "string", "enum": ["red"]}, {"type": "string", "enum": ["blue"]}
    price: JsonObject = {"type": "float", "default": 1.5}
    [tool] = tools_of([row("1", color=red), row("2", color=red), row("3", color=blue, price=price)])
    assert tool.name == "shop_order"
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "item": {"type": "string"},
            "color": {"type": "string", "enum": ["red", "blue"]},
            "price": {"type": "number", "default": 1.5},
        },
        "required": ["item", "color"],
    }


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ({"item": ["a", "b"]}, {"item": "a"}),
        ({"item": ["a"], "note": ["", "x"]}, {"item": "a"}),
        ({"item": ["", "a"]}, {"item": "a"}),
        ({"item": [""]}, {"item": ""}),
        ({"item": [{"deep": ["", 1], "wide": [["x"]]}]}, {"item": {"wide": ["x"]}}),
        ({"item": [[{"n": [5]}]]}, {"item": [{"n": 5}]}),
        ({"item": [False]}, {"item": False}),
    ],
)
def test_the_first_accepted_value_is_the_call(arguments: dict[str, list[Any]], call: JsonObject) -> None:
    assert gold(arguments, ["item"]) == call


def test_a_call_that_does_not_fit_its_schema_is_no_row() -> None:
    tool = Tool(name="shop_order", parameters={"type": "object", "properties": {"item": {"type": "string"}}})
    assert trajectory(Row("1", [], function(), {"item": [5]}), [tool]) is None


def installed() -> bool:
    try:
        return metadata.version("bfcl-eval") == VERSION
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason=f"needs the data: pip install --no-deps bfcl-eval=={VERSION}")
def test_the_real_rows(tmp_path: Path) -> None:
    report = write(installed_data(), tmp_path)
    assert report == {"tools": 27, "rows": 777, "invalid": 6, "train": 558, "valid": 72, "test": 141}
