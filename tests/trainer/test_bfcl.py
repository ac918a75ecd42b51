"""Rows in the leaderboard's format: types, accepted values, what is answered in text, and what must never be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.shared.contracts.tools import JsonObject, Tool
from trainer.accepted import is_accepted
from trainer.bfcl import VERSION, Row, data_of, gold, plain_name, read, tools_of, trajectory, unserved, write
from trainer.dataset import build
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


def ask(root: Path, *questions: tuple[list[str], list[str]]) -> Path:
    """Requests, each by the roles and texts of its messages and the functions that were offered."""
    rows = []
    for number, (messages, offered) in enumerate(questions):
        said = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(messages)]
        rows.append({"id": f"i{number}", "question": [said], "function": [function(name) for name in offered]})
    (root / "BFCL_v4_live_irrelevance.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root


def test_every_row_is_a_call_that_the_gates_let_through(tmp_path: Path) -> None:
    data(tmp_path / "data", "live_multiple", count=5)
    root = ask(data(tmp_path / "data"), (["Sing for me"], ["shop.order"]))
    assert write(root, tmp_path / "toolset") == {"tools": 1, "calls": 17, "answers": 1}
    rows = list(read_rows(tmp_path / "toolset" / "conversations.jsonl", Trajectory))
    assert [(row.source, row.kind, first_flaw(row)) for row in rows] == [
        *[("bfcl", "shop_order", None)] * 17,
        ("bfcl", "outside", None),
    ]
    [tool] = json.loads((tmp_path / "toolset" / "tools.json").read_text())
    assert tool["function"]["name"] == "shop_order"


def test_what_people_accept_was_not_made_up_though_nobody_said_it(tmp_path: Path) -> None:
    [tool] = tools_of([row := Row("1", [{"role": "user", "content": "Something sweet!"}], function(), {"item": ["a cake"]})])
    made = trajectory(row, [tool])
    assert first_flaw(made) is None
    assert first_flaw(made.model_copy(update={"accepted": {}})) == ("groundedness", "shop_order: 'a cake' comes from nowhere")


def test_requests_are_answered_in_text_where_the_tools_were_offered_in_vain(tmp_path: Path) -> None:
    tools = [Tool(name="shop_order"), Tool(name="weather_today", description="Tells the temperature.")]
    root = ask(
        tmp_path,
        (["Sing for me"], ["shop.order"]),
        (["Sing for us"], ["sing"]),
        (["What temperature will it be?"], ["shop.order"]),
        (["What temperature will it be?"], ["shop.order", "weather.today"]),
        (["Sing", "No.", "Please!"], ["shop.order"]),
        (["唱歌"], ["shop.order"]),
        ([" "], ["shop.order"]),
    )
    found = list(unserved(root, tools))
    assert [row.id for row in found] == ["i0", "i3"]
    assert [first_flaw(row) for row in found] == [None, None]


def test_names_are_what_openai_allows() -> None:
    assert plain_name({"name": "uber.eat order/v2"}) == "uber_eat_order_v2"


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


def test_the_call_is_among_those_that_are_accepted() -> None:
    accepted = {"item": [["a", "b"]], "note": ["", "x"], "box": [{"deep": ["", 1], "wide": [["x"]]}]}
    assert is_accepted(gold(accepted, ["item"]), accepted)


def test_a_call_that_does_not_fit_its_schema_is_dropped(tmp_path: Path) -> None:
    [tool] = tools_of([row := Row("1", [{"role": "user", "content": "5"}], function(), {"item": [5]})])
    assert [drop.rule for drop in build([trajectory(row, [tool])], []).drops] == ["schema"]


@pytest.mark.parametrize("version", [None, "2025.1.1"])
def test_data_that_is_not_there_is_named_with_how_to_get_it(tmp_path: Path, version: str | None) -> None:
    if version:
        (tmp_path / f"bfcl_eval-{version}.dist-info").mkdir()
        (tmp_path / f"bfcl_eval-{version}.dist-info" / "METADATA").write_text(f"Name: bfcl-eval\nVersion: {version}\n")
    with pytest.raises(RuntimeError, match=f"{version or 'no bfcl-eval'}; uv pip install .* bfcl-eval=={VERSION}"):
        data_of(tmp_path)


PACKAGE = Path("build/bfcl-eval")


@pytest.mark.skipif(not PACKAGE.exists(), reason="needs the data, which `make train-bfcl` installs")
def test_the_real_rows(tmp_path: Path) -> None:
    assert write(data_of(PACKAGE), tmp_path) == {"tools": 27, "calls": 777, "answers": 90}
    dataset = build(read_rows(tmp_path / "conversations.jsonl", Trajectory), [])
    assert {part: len(rows) for part, rows in dataset.parts.items()} == {"train": 680, "valid": 85, "test": 85}
    assert dataset.report()["dropped"] == {"schema": 6, "duplicate": 11}
