"""What others read: the trainer's own row, and documents which the ATIF models accept."""

from __future__ import annotations

import json
from pathlib import Path

import atif
import pytest

from services.sandbox.errors import CallTimedOut
from services.sandbox.limits import Block
from services.sandbox.trajectory.__main__ import main
from services.sandbox.trajectory.records import tool_digest
from services.shared.contracts.tools import Tool
from tests.sandbox.trajectory.conftest import HERE, Called, Knowing, MakeLog, Said, run
from trainer.trajectories import Trajectory

TOOL = Tool(name="read", description="Reads a file.", parameters={"type": "object", "properties": {"path": {"type": "string"}}})


@pytest.fixture
def toolsets(tmp_path: Path) -> Path:
    (tmp_path / "toolsets" / "files").mkdir(parents=True)
    (tmp_path / "toolsets" / "files" / "tools.json").write_text(json.dumps([TOOL.openai()]))
    return tmp_path / "toolsets"


def written(make_log: MakeLog, *, with_text: bool = True) -> None:
    """Two calls of one session, the second without a result; one of another session."""
    log = make_log(with_text=with_text, asking=Knowing(tool_digest=tool_digest(TOOL)))
    run(log, said=Said(blocks=[Block(text="one"), Block(json=b'{"type":"image","data":"aGk="}'), Block(text="two")]))
    with pytest.raises(CallTimedOut), log.recorded(Called(call_id="call-2"), None, HERE):
        raise CallTimedOut("it took too long")
    run(log, Called(session_id="session-2"))
    log.close()


def export(format: str, tmp_path: Path, toolsets: Path) -> int:
    out = ["--out", str(tmp_path / "out"), "--toolsets", str(toolsets)]
    return main(["export", str(tmp_path / "log"), "--format", format, *out])


def test_the_trainer_reads_its_own_rows(make_log: MakeLog, tmp_path: Path, toolsets: Path) -> None:
    written(make_log)
    assert export("trainer", tmp_path, toolsets) == 0
    lines = (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()
    first, second = [Trajectory.model_validate_json(line) for line in lines]
    assert [message["role"] for message in first.messages] == ["assistant", "tool", "assistant", "tool"]
    assert [message["content"] for message in first.messages if message["role"] == "tool"] == [
        "one\n[image]\ntwo",
        "it took too long",
    ]
    assert first.messages[0]["tool_calls"][0]["function"] == {"name": "read", "arguments": '{"path": "/a"}'}
    assert first.failed == [first.messages[3]["tool_call_id"]]
    assert first.tools == [TOOL.openai()]
    assert (len(second.messages), second.failed) == (2, [])


def test_atif_reads_its_documents(make_log: MakeLog, tmp_path: Path, toolsets: Path) -> None:
    written(make_log)
    assert export("atif", tmp_path, toolsets) == 0
    documents = [atif.Trajectory.model_validate_json(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert {document.schema_version for document in documents} == {"ATIF-v1.7"}
    [document] = [document for document in documents if document.session_id == "session-1"]
    step, late = document.steps
    assert step.tool_calls is not None
    assert step.observation is not None
    assert (step.tool_calls[0].function_name, step.tool_calls[0].arguments) == ("read", {"path": "/a"})
    assert step.observation.results[0].content == "one\n[image]\ntwo"
    assert late.extra is not None
    assert (late.extra["outcome"], late.extra["reason"]) == ("failed", "CALL_TIMED_OUT")


@pytest.mark.parametrize("format", ["trainer", "atif"])
def test_what_was_kept_without_texts_is_left_out_and_counted(
    make_log: MakeLog, tmp_path: Path, toolsets: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    written(make_log, with_text=False)
    assert export(format, tmp_path, toolsets) == 1
    assert "2 trajectories left out: texts were not kept (AGENTFLUX_SANDBOX_TRAJECTORY_TEXT=true" in capsys.readouterr().err


def test_tools_that_nobody_describes_any_more_are_left_out(
    make_log: MakeLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(make_log)
    (tmp_path / "toolsets").mkdir()
    assert export("atif", tmp_path, tmp_path / "toolsets") == 1
    assert "no longer, described below the toolsets directory" in capsys.readouterr().err


def test_a_changed_log_is_not_exported(
    make_log: MakeLog, tmp_path: Path, toolsets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(make_log)
    path = tmp_path / "log" / "calls-00000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"too long", b"too late"))
    assert export("trainer", tmp_path, toolsets) == 1
    assert "is not as it was written" in capsys.readouterr().err
