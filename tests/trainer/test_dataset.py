"""What the dataset step lets through, how it splits, and what it says about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.shared.clients.test_adapter_store_faults import leave_free, mounted
from tests.trainer.rows_of import call, conversation, read, result, turn
from trainer.dataset import PARTS, asked, build, write_dataset
from trainer.episodes import read_rows, write_rows
from trainer.similarity import _signature, pieces
from trainer.trajectories import Drop, Trajectory

PLACES = [f"{noun}{number}.txt" for noun in ("harbour", "violin", "tundra", "ledger", "quartz") for number in range(40)]


def rows(count: int, kind: str = "read") -> list[Trajectory]:
    asked = ("Show me {}", "what does {} say, please?", "I would like to see the text of {} now", "{} - print it")
    return [read(path, asked=asked[i % 4].format(path), id=f"{kind}{i}", kind=kind) for i, path in enumerate(PLACES[:count])]


def test_a_question_asked_twice_with_the_same_calls_is_kept_once() -> None:
    dataset = build([read(id="a"), read(id="b", asked="show me  A.TXT".replace("A.TXT", "a.txt"))], [])
    assert sum(map(len, dataset.parts.values())) == 1
    assert [drop.rule for drop in dataset.drops] == ["duplicate"]


def test_the_same_row_twice_is_kept_once() -> None:
    dataset = build([read(id="a"), read(id="a")], [])
    assert [drop.rule for drop in dataset.drops] == ["duplicate"]


def test_the_first_of_the_test_part_are_of_every_kind() -> None:
    dataset = build([*rows(100, "read"), *(one.model_copy(update={"kind": "tell"}) for one in rows(200)[100:])], [])
    assert {row.kind for row in dataset.parts["test"][:10]} == {"read", "tell"}


def test_near_duplicates_never_stand_in_two_parts() -> None:
    near = [
        read(path, id=f"{path}{i}", asked=f"Would you kindly show me the whole of {path}{'!' * i}")
        for path in PLACES[:30]
        for i in range(3)
    ]
    dataset = build(near, [])
    where = {row.id: part for part, part_rows in dataset.parts.items() for row in part_rows}
    parts_of = [{where[f"{path}{i}"] for i in range(3) if f"{path}{i}" in where} for path in PLACES[:30]]
    assert all(len(parts) == 1 for parts in parts_of)


def test_what_resembles_a_heldout_question_may_not_teach() -> None:
    dataset = build([read(id="a", asked="Would you show me a.txt?"), *rows(5)], [read(id="h", asked="would you show me a.txt")])
    assert [(drop.id, drop.rule) for drop in dataset.drops] == [("a", "heldout")]


def test_every_kind_gets_its_share_and_a_rare_one_goes_to_training_first() -> None:
    rare = [conversation(turn(call("roots")), result("/x"), asked="where may you look?", id="rare", kind="rare")]
    dataset = build([*rows(100), *rare], [])
    assert [row.id for row in dataset.parts["train"] if row.kind == "rare"] == ["rare"]
    sizes = {part: sum(row.kind == "read" for row in part_rows) for part, part_rows in dataset.parts.items()}
    assert sum(sizes.values()) == 100
    assert 70 <= sizes["train"] <= 90
    assert min(sizes["valid"], sizes["test"]) >= 5


def test_many_small_kinds_have_all_parts_too() -> None:
    small = [row.model_copy(update={"kind": f"kind{i % 20}"}) for i, row in enumerate(rows(120))]
    dataset = build(small, [])
    assert {part: len(part_rows) for part, part_rows in dataset.parts.items()} == {"train": 96, "valid": 12, "test": 12}
    assert {row.kind for row in dataset.parts["train"]} == {row.kind for row in small}


def test_the_same_rows_are_held_out_in_whatever_order_they_come() -> None:
    found = [build(some, []) for some in (rows(100), rows(100)[::-1])]
    assert [{row.id for row in found[0].parts[part]} for part in PARTS] == [
        {row.id for row in found[1].parts[part]} for part in PARTS
    ]


def test_questions_of_one_long_template_never_stand_in_two_parts() -> None:
    # Each resembles some of the others, few of them the first one.
    long = "Look through the folder of the quarterly reports and tell me in a sentence what {} says of {}, and nothing else"
    made = [read(a, asked=long.format(a, b), id=f"{a}{b}") for a in PLACES[::9] for b in PLACES[::11]]
    dataset = build([*made, *rows(100)], [])
    held, taught = ([pieces(asked(row)) for row in dataset.parts[part]] for part in ("test", "train"))
    assert held
    assert max(len(a & b) / len(a | b) for a in held for b in taught) < 0.8


def test_equal_hashes_are_as_many_as_equal_pieces() -> None:
    one, other = (set(range(start, start + 100)) for start in (0, 20))
    signatures = [_signature({str(number) for number in numbers}) for numbers in (one, other)]
    assert (signatures[0] == signatures[1]).mean() == pytest.approx(80 / 120, abs=0.13)


def test_a_disk_that_is_full_leaves_no_half_report(tmp_path: Path) -> None:
    some = rows(20)
    whole = write_dataset(some, tmp_path / "none.jsonl", tmp_path / "whole")
    with mounted(tmp_path / "disk", "size=1m") as disk:
        refused = 0
        for pages in range(1, 20):
            leave_free(disk, pages)
            try:
                write_dataset(some, disk / "none.jsonl", disk)
            except OSError:
                refused += 1
                assert not (disk / "dataset.json").exists()
            else:
                break
        assert refused >= 3
        assert json.loads((disk / "dataset.json").read_text()) == whole


def test_arguments_of_unlike_types_stay_as_they_are(tmp_path: Path) -> None:
    mixed = [
        conversation(turn(call("read_file", path="a.txt", head=3)), result("x"), asked="3 lines of a.txt", id="n"),
        conversation(turn(call("tag", labels=[{"n": 7}])), result("x"), asked="label everything with a 7", id="o"),
    ]
    write_rows(tmp_path / "t.jsonl", mixed)
    report = write_dataset(read_rows(tmp_path / "t.jsonl", Trajectory), tmp_path / "none.jsonl", tmp_path)
    kept = {row.id: row for part in ("train", "valid", "test") for row in read_rows(tmp_path / f"{part}.jsonl", Trajectory)}
    assert {key: row.messages for key, row in kept.items()} == {row.id: row.messages for row in mixed}
    assert report["dropped"] == {}


def test_the_report_counts_drops_by_rule_and_names_rare_tools(tmp_path: Path) -> None:
    unread = Drop(id="mine.jsonl:7", kind="", rule="unreadable", reason="JSONDecodeError", row_sha256="0")
    found = [*rows(30), unread, read("nowhere.txt", id="bad"), read("elsewhere.txt", id="worse")]
    report = write_dataset(found, tmp_path / "none.jsonl", tmp_path)
    assert report["dropped"] == {"groundedness": 2, "unreadable": 1}
    assert report["rare_tools"] == ["roots", "tag"]
    assert "nowhere.txt" in (tmp_path / "drops.jsonl").read_text()
