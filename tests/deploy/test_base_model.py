"""The base model is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.base_model import prepare, whats_wrong
from deploy.local.faults import Fault


def test_a_corrupt_source_is_refused_with_both_hashes(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Fault, match=r"is corrupt: SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}") as fault:
        prepare(tmp_path / "out", source=source, say=lambda _: None)
    assert "make setup" in fault.value.next_step
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="is missing"):
        prepare(tmp_path / "out", source=tmp_path / "none.gguf", say=lambda _: None)


def test_a_folder_without_its_manifest_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "unfinished" in (whats_wrong(tmp_path) or "")
