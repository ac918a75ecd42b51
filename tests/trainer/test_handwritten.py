"""The evaluation on requests written by hand: which of them count, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import base_model
from deploy.local.plan import LocalSettings
from tests.trainer.rows_of import read
from trainer.handwritten import main, unlike


def test_what_training_has_nearly_the_same_is_left_out() -> None:
    training = [read(id="t", asked="please show me the file a.txt right now"), read(id="u", asked="what is in b.txt?")]
    rows = [read(id="same", asked="Please show me the file a.txt right now!"), read(id="other", asked="i forgot what a.txt says")]
    fresh, left_out = unlike(rows, training)
    assert ([row.id for row in fresh], left_out) == (["other"], 1)
    assert unlike(rows, []) == (rows, 0)


def test_a_store_without_adapters_is_refused_in_one_line(tmp_path: Path) -> None:
    model = LocalSettings().model
    base_model.prepare(model, say=lambda _: None)
    command = [sys.executable, "-m", "trainer.handwritten", "--toolset", "filesystem", "--store", str(tmp_path)]
    done = subprocess.run([*command, "--model", str(model), "--work", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "serves no adapters of filesystem" in done.stderr
    assert "Traceback" not in done.stderr


def test_requests_that_nobody_wrote_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["handwritten", "--toolset", "filesystem", "--store", "none", "--requests", "poems"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "invalid choice: 'poems' (choose from 'everyday', 'documents', 'goals')" in capsys.readouterr().err
