"""No byte of a log can change unnoticed, and none of its records can go."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from services.sandbox.trajectory import chain
from services.sandbox.trajectory.__main__ import main
from services.sandbox.trajectory.store import files_in
from services.sandbox.trajectory.verify import verify
from tests.sandbox.trajectory.conftest import HERE, Called, MakeLog, run


@pytest.fixture
def written(make_log: MakeLog, tmp_path: Path) -> Path:
    """A log of two files."""
    log = make_log(file_bytes=4000)
    for number in range(5):
        run(log, Called(call_id=f"call-{number}"))
    log.close()
    return tmp_path / "log"


def test_a_whole_log_is_whole(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(written)]) == 0
    report = verify(files_in(written))
    assert capsys.readouterr().out == f"{report.records} records, 5 calls, 0 in flight; head {report.head}\n"


def test_a_changed_byte_is_found_wherever_it_is(written: Path) -> None:
    dice = random.Random(1)
    for path in files_in(written):
        whole = path.read_bytes()
        newlines = [place for place, byte in enumerate(whole) if byte == ord("\n")]
        for place in [*newlines, *dice.sample(range(len(whole)), 200)]:
            changed = bytearray(whole)
            changed[place] ^= 1 << dice.randrange(8)
            path.write_bytes(changed)
            assert verify(files_in(written)).problems, (path, place)
        path.write_bytes(whole)
    assert not verify(files_in(written)).problems


def test_a_line_that_is_gone_doubled_or_moved_is_found(written: Path) -> None:
    path = files_in(written)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (
        [*lines[:2], *lines[3:]],
        [lines[0], *lines],
        [lines[0], lines[2], lines[1], *lines[3:]],
        lines[1:],
        [b"\n", *lines],
    ):
        path.write_bytes(b"".join(wrong))
        assert verify(files_in(written)).problems


def test_a_second_end_is_found_even_where_the_chain_is_right(written: Path) -> None:
    path = files_in(written)[-1]
    last = json.loads(path.read_bytes().splitlines()[-1])
    row = {key: value for key, value in last.items() if key not in ("schema", "hash", "prev")}
    path.write_bytes(path.read_bytes() + chain.sealed({**row, "seq": last["seq"] + 1}, last["hash"])[0])
    [problem] = verify(files_in(written)).problems
    assert "call 'call-4' has two ends" in problem


def test_a_call_without_an_end_is_named_unless_the_sandbox_runs(
    make_log: MakeLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_log()
    log.recorded(Called(call_id="open"), None, HERE).__enter__()
    assert main(["verify", str(tmp_path / "log")]) == 1
    assert "call 'open' (files.read, record 2) has no end" in capsys.readouterr().err
    assert main(["verify", "--running", str(tmp_path / "log")]) == 0


def test_a_log_whose_end_was_cut_off_lacks_the_hash_that_was_noted(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, path = verify(files_in(written)).head, files_in(written)[-1]
    assert main(["verify", "--head", head, str(written)]) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    assert main(["verify", "--head", head, str(written)]) == 1
    assert "cut off or written anew" in capsys.readouterr().err


def test_a_torn_line_is_a_problem_until_a_start_has_recorded_it(written: Path, make_log: MakeLog) -> None:
    path = files_in(written)[-1]
    path.write_bytes(path.read_bytes() + b'{"half')
    [problem] = verify(files_in(written)).problems
    assert "torn" in problem
    make_log().close()
    assert verify(files_in(written)).problems == []
    path.write_bytes(path.read_bytes()[:-1] + b"g")
    assert verify(files_in(written)).problems


def test_nothing_to_verify_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "there is no log" in capsys.readouterr().err
