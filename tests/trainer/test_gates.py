"""Every defect that training data was seen to have, and that it does not get through. Each case is one row of the table."""

from __future__ import annotations

import pytest

from tests.trainer.rows_of import call, conversation, read, result, turn
from trainer.gates import RULES, first_flaw
from trainer.trajectories import Trajectory


def broken(arguments: object) -> Trajectory:
    made = call("read_file")
    made["function"]["arguments"] = arguments
    return conversation(turn(made), result("x"))


def renamed(name: str, asked: str) -> Trajectory:
    row = read(asked=asked)
    return Trajectory.model_validate_json(row.model_dump_json().replace('"read_file"', f'"{name}"'))


def open_schema(**parameters: object) -> Trajectory:
    row = conversation(turn(call("read_file", path="a.txt", n="a")), result("x"))
    shown = [{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object", **parameters}}}]
    return row.model_copy(update={"tools": shown})


TWICE = turn(call("read_file", path="a.txt"), call("read_file", path="a.txt"))

DEFECTS = {
    "a required argument is missing": (conversation(turn(call("read_file", head=1)), result("x"), asked="1 line"), "schema"),
    "a boolean passes as a number": (conversation(turn(call("read_file", path="a.txt", head=True)), result("x")), "schema"),
    "a fraction passes as an integer": (conversation(turn(call("read_file", path="a.txt", head=1.5)), result("x")), "schema"),
    "a value is not of the enum": (conversation(turn(call("read_file", path="a.txt", mode="loud")), result("x")), "schema"),
    "an item of an array is wrong": (conversation(turn(call("tag", labels=[{"n": "1"}])), result("x")), "schema"),
    "another tool's argument leaked in as null": (
        conversation(turn(call("read_file", path="a.txt", labels=None)), result("x")),
        "schema",
    ),
    "the tool does not exist": (conversation(turn(call("fly", path="a.txt")), result("x")), "tool"),
    "the arguments are cut off": (broken('{"path": "a.t'), "arguments"),
    "the arguments are an object and not its text": (broken({"path": "a.txt"}), "arguments"),
    "the arguments are encoded twice": (broken('"{\\"path\\": \\"a.txt\\"}"'), "arguments"),
    "a call has no result": (conversation(turn(call("read_file", path="a.txt"))), "pairing"),
    "a result has no call": (conversation(result("x")), "shape"),
    "two calls share an id": (conversation(TWICE, result("x"), result("y")), "pairing"),
    "it ends in the middle": (conversation(turn(call("read_file", path="a.txt")), result("x"), answer=None), "pairing"),
    "the last answer is empty": (conversation(turn(call("read_file", path="a.txt")), result("x"), answer=""), "pairing"),
    "every call failed": (read(failed=["call_1"]), "failed"),
    "a path comes from nowhere": (read("secret.txt"), "groundedness"),
    "the user names the tool": (read(asked="use read_file on a.txt"), "leakage"),
    "the user names a tool of two words": (renamed("listFiles", "do listfiles with a.txt"), "leakage"),
    "the user names a tool with a hyphen": (renamed("get-sum", "run get-sum of a.txt"), "leakage"),
    "the arguments are nested beyond reading": (broken('{"path": ' + '{"a": ' * 3000 + "1" + "}" * 3001), "arguments"),
    "a call is of a kind of its own": (
        conversation(
            {**turn(), "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "x", "input": ""}}]}, result("x", "c")
        ),
        "arguments",
    ),
    "nobody asks": (
        Trajectory(id="t", source="s", kind="k", messages=[{"role": "assistant", "content": "x"}], tools=[]),
        "shape",
    ),
    "an unknown role": (conversation({"role": "critic", "content": "x"}), "shape"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_does_not_get_through(defect: str) -> None:
    row, rule = DEFECTS[defect]
    flaw = first_flaw(row)
    assert flaw is not None
    assert flaw[0] == rule, flaw


@pytest.mark.parametrize(
    "row",
    [
        read(),
        read("/workspace/a.txt"),
        read(asked="use read_file on a.txt", names_tool=True),
        renamed("search", "search for a.txt"),
        open_schema(properties={"path": {}}, additionalProperties={"type": "string"}),
        open_schema(patternProperties={"^": {"type": "string"}}),
        conversation(turn(call("roots")), result("/x")),
        conversation(
            turn(call("roots")), result("/x/b.txt"), turn(call("read_file", "call_2", path="/x/b.txt")), result("y", "call_2")
        ),
        conversation(turn(call("tag", labels=[{"n": 3}])), result("x"), asked="tag it 3"),
        conversation(
            turn(call("read_file", path="b.txt")), result("ENOENT"),
            turn(call("read_file", "call_2", path="a.txt")), result("y", "call_2"), failed=["call_1"],
        ),
    ],
)  # fmt: skip
def test_a_good_row_gets_through(row: Trajectory) -> None:
    assert first_flaw(row) is None


def test_every_rule_stops_something() -> None:
    assert {rule for _, rule in DEFECTS.values()} == set(RULES)
