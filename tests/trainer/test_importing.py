"""Rows of the reference implementation, defects included: read what can be read, and let the gates judge the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trainer.rows_of import TOOLS
from tests.trainer.rows_of import read as good_row
from trainer.gates import first_flaw
from trainer.importing import finished, imported
from trainer.trajectories import Drop, Trajectory


def theirs(arguments: Any, *, call_id: str | None = "c1", result: str = "hello", tool: str = "read_file") -> dict[str, Any]:
    return {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "user", "content": "Show me a.txt"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}],
            },
            {"role": "tool", "content": result, "tool_call_id": call_id},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": [tool.openai() for tool in TOOLS],
    }


def read(tmp_path: Path, *rows: Any) -> list[Trajectory | str]:
    path = tmp_path / "theirs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return list(imported(path))


def good(tmp_path: Path, row: dict[str, Any]) -> Trajectory:
    [found] = read(tmp_path, row)
    assert isinstance(found, Trajectory)
    return found


def test_arguments_as_text_and_as_an_object_are_the_same(tmp_path: Path) -> None:
    for arguments in ('{"path": "a.txt"}', {"path": "a.txt"}):
        row = good(tmp_path, theirs(arguments))
        assert first_flaw(row) is None
        assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"path": "a.txt"}'


def test_a_lost_call_id_is_made_up(tmp_path: Path) -> None:
    assert first_flaw(good(tmp_path, theirs({"path": "a.txt"}, call_id=None))) is None


def test_a_failure_is_marked(tmp_path: Path) -> None:
    row = good(tmp_path, theirs({"path": "a.txt"}, result="ENOENT: no such file"))
    assert row.failed == ["c1"]
    assert first_flaw(row) == ("failed", "every call failed")


def test_defects_stop_one_row_and_not_the_import(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        "{cut off",
        theirs({"path": "a.txt"}, tool="fly"),
        theirs('{"path": '),
        {"messages": [{}]},
        theirs({"path": "a.txt"}),
    )
    assert [isinstance(row, Trajectory) for row in rows] == [False, True, True, False, True]
    flaws = [first_flaw(row) for row in rows if isinstance(row, Trajectory)]
    assert [flaw and flaw[0] for flaw in flaws] == ["tool", "arguments", None]
    assert ":1: JSONDecodeError" in str(rows[0])


def test_finished_conversations_of_several_files_and_shapes(tmp_path: Path) -> None:
    """Rows as clients have them and whole trajectories; what cannot be read is left out by name, and the rest goes on."""
    whole = good_row("b.txt", id="mine").model_copy(
        update={"source": "people", "accepted": {"call_1": {"path": ["b.txt", "B.txt"]}}}
    )
    (tmp_path / "one.jsonl").write_text(json.dumps(theirs({"path": "a.txt"})) + "\n\n" + whole.model_dump_json())
    half = json.dumps(theirs({"path": "a.txt"})).replace("a.txt", "\\ud83d", 1)
    lines = [b'{"messages": []', b"\xff\xfe{}", b"5", b'{"messages": [{"role": "user"}]}', b'{"source": "x"}', half.encode()]
    (tmp_path / "two.jsonl").write_bytes(b"\n".join(lines))
    rows = list(finished([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], TOOLS[:1]))
    read_rows = [row for row in rows if isinstance(row, Trajectory)]
    assert [first_flaw(row) for row in read_rows] == [None, None]
    assert read_rows[1] == whole.model_copy(update={"tools": [TOOLS[0].openai()]})
    drops = [row for row in rows if isinstance(row, Drop)]
    assert [drop.id for drop in drops] == [f"{tmp_path / 'two.jsonl'}:{line}" for line in range(1, 7)]
    assert {drop.rule for drop in drops} == {"unreadable"}


def test_a_column_of_somebody_s_own_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**theirs({"path": "a.txt"}), "source": "our tickets"}))
    [row] = finished([tmp_path / "rows.jsonl"], TOOLS[:1])
    assert isinstance(row, Trajectory)
    assert first_flaw(row) is None


def test_the_tools_are_those_of_the_toolset(tmp_path: Path) -> None:
    """A conversation that was had with more tools than are trained cannot teach those that are not there."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(theirs({"path": "a.txt"})))
    [row] = finished([tmp_path / "rows.jsonl"], TOOLS[1:])
    assert isinstance(row, Trajectory)
    assert first_flaw(row) == ("tool", "there is no tool 'read_file'")
