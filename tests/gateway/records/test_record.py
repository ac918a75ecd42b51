"""What a reply's headers tell of its turn."""

from __future__ import annotations

import json

import pytest

from services.gateway.events import CallOpened, CallWritten, Outside, Selected
from services.gateway.records.record import MAX_HEADER, TurnRecord, turn_of
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.selection import Selection


def record(*tools: str, labels: int = 2) -> TurnRecord:
    """A turn that called these tools."""
    turn = TurnRecord()
    for number, tool in enumerate(tools):
        chances = {f"{tool}{n}": 1 / labels for n in range(labels)}
        selection = Selection(
            tool=tool, probabilities=chances, margin=0.25, valid_mass=1, strategy="exact", adapter="files.select--1", release=7
        )
        turn.note(Selected(selection, "files"))
        turn.note(CallOpened(f"call_{number}", tool))
        turn.note(CallWritten(GeneratedArguments(arguments="{}", attempts=number + 1, adapter=f"files.{tool}--1", release=7)))
    return turn


def test_one_call_tells_its_margin_and_its_adapters() -> None:
    headers = record("read_file").headers()
    selection, arguments = json.loads(headers["x-agentflux-selection"]), json.loads(headers["x-agentflux-arguments"])
    assert (selection["tool"], selection["margin"], selection["adapter"], selection["release"]) == (
        "read_file", 0.25, "files.select--1", 7,
    )  # fmt: skip
    assert selection["probabilities"] == {"read_file0": 0.5, "read_file1": 0.5}
    assert arguments == {"adapter": "files.read_file--1", "release": 7, "attempts": 1}
    assert "x-agentflux-upstream" not in headers


def test_further_calls_are_told_too() -> None:
    headers = record("read_file", "list_directory", "stat").headers()
    further = json.loads(headers["x-agentflux-selection"])["further"]
    assert [(each["tool"], each["margin"], each["adapter"]) for each in further] == [
        ("list_directory", 0.25, "files.select--1"),
        ("stat", 0.25, "files.select--1"),
    ]
    assert [each["attempts"] for each in json.loads(headers["x-agentflux-arguments"])["further"]] == [2, 3]


@pytest.mark.parametrize("name", ["read_file", "ß" * 128, "💥" * 128])
def test_headers_are_bounded_ascii_and_say_what_they_leave_out(name: str) -> None:
    headers = record(*[name] * 64, labels=128).headers()
    assert all(len(value) <= MAX_HEADER and value.isascii() for value in headers.values())
    told = json.loads(headers["x-agentflux-selection"])
    assert len(told.get("further", [])) + told["omitted"] + ("tool" in told) == 64


def test_who_was_asked_elsewhere_is_told() -> None:
    turn = TurnRecord()
    turn.note(Outside("big", "answer", "deadline_exceeded"))
    told = json.loads(turn.headers()["x-agentflux-upstream"])
    assert told == {"upstream": "big", "for": "answer", "failure": "deadline_exceeded"}


def test_every_doors_ids_stand_for_their_turn() -> None:
    turn = TurnRecord()
    for prefix in ("chatcmpl-", "resp_", "msg_", ""):
        assert turn_of(prefix + turn.id) == turn.id
    for strange in ("", "chatcmpl-1", f"call_{turn.id}", f"resp_{turn.id}\n", turn.id.upper() + "é"):
        assert turn_of(strange) is None
