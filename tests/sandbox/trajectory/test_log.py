"""What is written for a call: always a start before it runs, and one end, whatever happens to it or to the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from services.sandbox.errors import CallTimedOut, LogUnavailable, ServerDied, UnknownToolset
from services.sandbox.limits import Block
from services.sandbox.trajectory.chain import GENESIS, sealed
from services.sandbox.trajectory.log import TrajectoryLog
from services.sandbox.trajectory.store import TrajectoryFiles, files_in
from services.sandbox.trajectory.verify import verify
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.tools import JsonObject
from tests.sandbox.trajectory.conftest import HERE, Called, Knowing, MakeLog, Said, run

CANARY = "canary-6f1d2e5b90"


def rows(directory: Path) -> list[JsonObject]:
    return [json.loads(line) for path in files_in(directory) for line in path.read_bytes().splitlines()]


def test_a_call_is_a_start_and_an_end(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log()
    with log.recorded(Called(), None, HERE) as record:
        assert rows(tmp_path / "log")[-1]["event"] == "start"
        record.finished(Said())
    opened, start, end = rows(tmp_path / "log")
    assert (opened["event"], start["event"], end["event"]) == ("open", "start", "end")
    assert start["call_id"] == end["call_id"] == "call-1"
    assert (start["trajectory_id"], start["tenant"], start["toolset"], start["tool"]) == ("session-1", "acme", "files", "read")
    assert start["enforced"] == end["enforced"] == ["no network"]
    assert start["driver"] == end["driver"] == "bwrap (nested)"
    assert (end["started"], end["outcome"], end["code"], end["reason"]) == (start["seq"], "ok", "OK", "")
    assert end["usage"]["output_bytes"] == 5
    assert end["usage"]["run_ms"] == 2.0


def test_texts_are_not_kept_unless_somebody_asks(make_log: MakeLog, tmp_path: Path) -> None:
    run(make_log(), Called(arguments=b'{"path": "/secret/plan", "other name": [1, 2.5, null, true]}'))
    written = (tmp_path / "log" / "calls-00000001.jsonl").read_text()
    assert "plan" not in written
    assert "other name" not in written
    assert "hello" not in written
    arguments = rows(tmp_path / "log")[1]["arguments"]
    assert arguments["shape"] == {"path": "string(12)", "key_1": ["integer", "number", "null", "boolean"]}
    assert len(arguments["sha256"]) == 64


def test_texts_are_kept_without_their_secrets(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(with_text=True, asking=Knowing(secrets=(CANARY.encode(),)))
    leak = json.dumps({"path": f"x{CANARY}y", "note": "password: hunter2hunter2"}).encode()
    run(
        log,
        Called(arguments=leak, session_id=CANARY),
        Said(blocks=[Block(text=f"TOKEN={CANARY}"), Block(json=b'{"type":"image"}')]),
    )
    with pytest.raises(ServerDied), log.recorded(Called(), None, HERE):
        raise ServerDied(f"it said {CANARY}")
    written = (tmp_path / "log" / "calls-00000001.jsonl").read_text()
    assert CANARY not in written
    assert "hunter2" not in written
    start, end = rows(tmp_path / "log")[1:3]
    assert start["arguments"]["text"].startswith('{"path": "xREDACTED-0y"')
    assert end["result"]["content"] == [
        {"type": "text", "text": "TOKEN=REDACTED-0"},
        {"type": "image", "bytes": 16, "sha256": sha256(b'{"type":"image"}').hexdigest()},
    ]


@pytest.mark.parametrize(
    ("form"),
    [CANARY, json.dumps("quote\"" + CANARY)[1:-1], "Y2FuYXJ5LTZmMWQyZTViOTA=", "eGNhbmFyeS02ZjFkMmU1Yjkw", CANARY.encode().hex()],
)  # fmt: skip
def test_a_secret_is_found_in_the_forms_in_which_tools_print_it(make_log: MakeLog, tmp_path: Path, form: str) -> None:
    log = make_log(with_text=True, asking=Knowing(secrets=(CANARY.encode(),)))
    run(log, said=Said(blocks=[Block(text=f"<{form}>")]))
    said = rows(tmp_path / "log")[2]["result"]["content"][0]["text"]
    assert form.strip("=") not in said
    assert "REDACTED" in said


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (CallTimedOut("late"), "failed", "CALL_TIMED_OUT"),
        (UnknownToolset("who?"), "failed", "TOOLSET_UNKNOWN"),
        (asyncio.CancelledError(), "cancelled", "CANCELLED"),
        (ZeroDivisionError(), "failed", "INTERNAL"),
    ],
)
def test_a_call_without_a_result_has_an_end_that_says_why(
    make_log: MakeLog, tmp_path: Path, error: BaseException, outcome: str, reason: str
) -> None:
    log = make_log(code_of=lambda error: "SOME_CODE")
    with pytest.raises(type(error)), log.recorded(Called(), None, HERE):
        raise error
    end = rows(tmp_path / "log")[-1]
    assert (end["event"], end["outcome"], end["reason"]) == ("end", outcome, reason)
    assert "who?" not in json.dumps(end)


async def faulty(log: TrajectoryLog, number: int, dice: random.Random) -> None:
    with log.recorded(Called(call_id=f"call-{number % 50}"), None, HERE) as record:
        await asyncio.sleep(0)
        match dice.randrange(6):
            case 0:
                raise CallTimedOut("late")
            case 1:
                raise ZeroDivisionError
            case 2:
                await asyncio.Event().wait()
            case 3:
                record.finished(Said(is_error=True))
            case _:
                record.finished(Said())


@pytest.mark.anyio
async def test_ten_thousand_faulty_calls_have_one_end_each(make_log: MakeLog, tmp_path: Path) -> None:
    log, dice = make_log(file_bytes=256 * 1024), random.Random(7)
    for batch in range(20):
        tasks = [asyncio.create_task(faulty(log, batch * 500 + number, dice)) for number in range(500)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    report = verify(files_in(tmp_path / "log"))
    assert (report.problems, report.calls, report.in_flight) == ([], 10_000, {})
    assert len(files_in(tmp_path / "log")) > 10
    outcomes = {row["outcome"] for row in rows(tmp_path / "log") if row["event"] == "end"}
    assert outcomes == {"ok", "tool_error", "failed", "cancelled"}


def test_calls_that_a_dead_runner_left_are_ended_at_the_next_start(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(file_bytes=2000)
    first = log.recorded(Called(call_id="left"), None, HERE)
    first.__enter__()
    for _ in range(6):
        run(log)
    # As a killed process leaves it: the lock gone, nothing said.
    assert log._files is not None
    os.close(log._files._lock)  # type: ignore[arg-type]
    log._files._lock = None
    last = files_in(tmp_path / "log")[-1]
    with last.open("ab") as file:
        file.write(b'{"schema":"agentflux')
    make_log()
    report = verify(files_in(tmp_path / "log"))
    assert (report.problems, report.in_flight) == ([], {})
    end = rows_that_can_be_read(tmp_path / "log")[-1]
    assert (end["call_id"], end["outcome"], end["reason"]) == ("left", "aborted", "RUNNER_DIED")


CALL = {
    "call_id": "", "trajectory_id": "", "tenant": "", "toolset": "", "tool": "", "driver": "", "enforced": [], "not_enforced": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"seq": 9},
        {"seq": 9, "event": "start"},
        {"seq": "9", "event": "end", "started": 1, **CALL},
        {"seq": 1 << 63, "event": "end", "started": 1, **CALL},
        {"seq": 9, "event": "end", "started": [], **CALL},
        {"seq": 9, "event": "start", **CALL, "driver": {}},
        {"seq": 9, "event": "open", "in_flight": 1, "torn": []},
        {"seq": 9, "event": "open", "in_flight": [1], "torn": []},
        {"seq": 9, "event": "open", "in_flight": [{"started": [], **CALL}], "torn": []},
        {"seq": 9, "event": "open", "in_flight": [], "torn": [{"file": []}]},
        {"seq": 9, "event": "laughter"},
    ],
)
@pytest.mark.parametrize("name", ["calls-00000002.jsonl", "calls-99999999.jsonl", "calls-x.jsonl"])
def test_a_line_that_is_sealed_and_no_record_does_not_keep_the_log_from_opening(
    make_log: MakeLog, tmp_path: Path, row: JsonObject, name: str
) -> None:
    log = make_log()
    run(log)
    log.close()
    (tmp_path / "log" / name).write_bytes(sealed(row, GENESIS)[0])
    for _ in range(2):
        log = make_log()
        run(log)
        log.close()
    assert rows(tmp_path / "log")[-1]["seq"] == 9
    problems = verify(files_in(tmp_path / "log")).problems
    assert problems == ([] if name == "calls-x.jsonl" else [f"{tmp_path}/log/{name}:1: not as it was written: it is no record"])


def rows_that_can_be_read(directory: Path) -> list[JsonObject]:
    lines = [line for path in files_in(directory) for line in path.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_two_sandboxes_do_not_share_a_log(make_log: MakeLog) -> None:
    make_log()
    with pytest.raises(Unavailable, match=r"another sandbox writes .*AGENTFLUX_SANDBOX_TRAJECTORY_DIR"):
        make_log()


def test_a_log_that_cannot_be_kept_is_no_start_or_a_warning(make_log: MakeLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot be kept in .*Not a directory.*AGENTFLUX_SANDBOX_TRAJECTORY=off"):
        make_log(tmp_path / "file" / "log")
    lost: list[str] = []
    log = make_log(tmp_path / "file" / "log", required=False, count=lost.append)
    run(log)
    assert lost == ["lost"]


def test_the_oldest_files_go_when_all_are_too_large(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(file_bytes=2000, max_bytes=8000)
    for _ in range(50):
        run(log)
    files = files_in(tmp_path / "log")
    assert 2 <= len(files) <= 7
    report = verify(files)
    assert report.problems == []
    assert report.first > 1


def test_a_file_that_somebody_deleted_is_missed(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(file_bytes=2000)
    for _ in range(20):
        run(log)
    files = files_in(tmp_path / "log")
    files[-1].unlink()
    assert log._files is not None
    for number in log._files.tick():
        os.close(number)
    run(log)
    assert any("missing" in problem for problem in verify(files_in(tmp_path / "log")).problems)


def test_old_files_go(make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log(file_bytes=1500)
    while len(files_in(tmp_path / "log")) < 2:
        run(log)
    os.utime(files_in(tmp_path / "log")[0], (0, 0))
    for _ in range(4):
        run(log)
    assert files_in(tmp_path / "log")[0].name != "calls-00000001.jsonl"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def run_often(log: TrajectoryLog) -> None:
    for _ in range(1000):
        run(log)


@pytest.mark.real
def test_on_a_full_disk_calls_are_refused_and_those_in_flight_end_later(make_log: MakeLog, small_disk: Path) -> None:
    log = make_log(small_disk / "log")
    waiting = log.recorded(Called(call_id="in flight"), None, HERE)
    waiting.__enter__()
    (small_disk / "ballast").write_bytes(b"x" * 24 * 1024)
    with pytest.raises(LogUnavailable, match=r"the call was not run.*No space left.*best-effort"):
        run_often(log)
    waiting.finished(Said())
    waiting.__exit__(None, None, None)
    assert verify(files_in(small_disk / "log")).problems == []
    (small_disk / "ballast").unlink()
    run(log)
    report = verify(files_in(small_disk / "log"))
    assert (report.problems, report.in_flight) == ([], {})


@pytest.mark.real
def test_on_a_full_disk_calls_run_where_the_operator_says_so(make_log: MakeLog, small_disk: Path) -> None:
    counted: list[str] = []
    log = make_log(small_disk / "log", required=False, count=counted.append)
    for _ in range(200):
        run(log)
    assert "lost" in counted
    assert verify(files_in(small_disk / "log")).problems == []


@pytest.mark.real
@pytest.mark.anyio
async def test_a_log_that_found_no_room_at_the_start_is_begun_once_there_is(
    make_log: MakeLog, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sandbox.trajectory.log.RETRY_S", 0.0)
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(b"x" * 128 * 1024)
    counted: list[str] = []
    log = make_log(small_disk / "log", required=False, count=counted.append)
    keeping = asyncio.create_task(log.keep(0.01))
    await asyncio.sleep(0.1)
    run(log)
    (small_disk / "ballast").unlink()
    async with asyncio.timeout(10):
        while "written" not in counted:
            await asyncio.sleep(0.01)
            run(log)
    keeping.cancel()
    assert counted[0] == "lost"
    report = verify(files_in(small_disk / "log"))
    assert (report.problems, report.in_flight) == ([], {})


def test_names_that_callers_choose_are_bounded(make_log: MakeLog, tmp_path: Path) -> None:
    run(make_log(), Called(toolset="x" * 100_000, call_id="a\nb\u202e", session_id="", arguments=b"[" * 5000))
    start = rows(tmp_path / "log")[1]
    assert len(start["toolset"]) == 256
    assert start["arguments"]["shape"] == "not JSON"
    assert start["trajectory_id"] == start["call_id"]


def test_a_record_names_the_trace_that_it_belongs_to(make_log: MakeLog, tmp_path: Path) -> None:
    span = NonRecordingSpan(SpanContext(trace_id=0xABC, span_id=1, is_remote=False))
    with use_span(span):
        run(make_log())
    assert rows(tmp_path / "log")[1]["trace_id"] == f"{0xABC:032x}"


def test_the_files_belong_to_the_operator_alone(make_log: MakeLog, tmp_path: Path) -> None:
    run(make_log())
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert files_in(tmp_path / "log")[0].stat().st_mode & 0o777 == 0o600


def test_off_is_off(tmp_path: Path) -> None:
    log = TrajectoryLog(None, asking=Knowing())
    log.open()
    run(log)
    log.close()
    assert isinstance(TrajectoryFiles(tmp_path / "never", max_file_bytes=1, max_bytes=1, max_age_s=1), TrajectoryFiles)
    assert not (tmp_path / "never").exists()
