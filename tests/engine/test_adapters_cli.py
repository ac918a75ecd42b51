"""The adapter store by hand: what an operator types, sees, and gets as an exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.engine.adapters import main
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import WEIGHTS_FILE, AdapterSet
from tests.adapters import card_of, publish_random, tiny_base, write_adapter

ROOT = Path(__file__).resolve().parents[2]

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    (tmp_path / "store").mkdir()
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def cli(store: AdapterStore, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["--store", str(store.root), *arguments])
        return status, *capsys.readouterr()

    return run


def test_from_publish_to_prune(cli, store, base, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base)
    card = card_of(folder, base).model_dump(mode="json", exclude={"files"})
    (tmp_path / "card.json").write_text(json.dumps(card))

    status, out, _ = cli("publish", str(folder), "--card", str(tmp_path / "card.json"), "--json")
    name = json.loads(out)["adapter"]
    assert (status, store.verify(name).files.keys()) == (0, {"adapter_config.json", WEIGHTS_FILE})
    assert cli("verify", name) == (0, f"{name} is whole and can be served\n", "")

    joint = publish_random(store, base, tmp_path / "joint", role="joint", seed=1)
    assert cli("promote", "filesystem", "--selector", name) == (0, f"release 1 of filesystem: {name}\n", "")
    promote = ("promote", "filesystem", "--selector", joint, "--arguments", f"read_file={joint}", "--note", "try it")
    assert cli(*promote) == (0, f"release 2 of filesystem: {joint}\n", "")
    assert store.manifest("filesystem").current.adapters == AdapterSet(selector=joint, arguments={"read_file": joint})
    assert store.manifest("filesystem").current.note == "try it"

    status, out, _ = cli("rollback", "filesystem", "--json")
    assert (status, json.loads(out)["adapters"]["selector"]) == (0, name)
    assert cli("promote", "filesystem") == (0, "release 4 of filesystem: the base model alone\n", "")

    unused = publish_random(store, base, tmp_path / "unused", seed=2)
    assert cli("prune") == (0, "nothing to delete\n", "")
    assert cli("prune", "--keep-days", "0") == (0, f"deleted {unused}\n", "")


def test_the_list_is_aligned_and_shows_what_is_wrong(cli, store, base, tmp_path):
    good = publish_random(store, base, tmp_path / "good", seed=1)
    bad = publish_random(store, base, tmp_path / "bad", seed=2, role="arguments", tool="read_file", prompt_profile="full")
    for adapters in (AdapterSet(selector=good), AdapterSet(selector=good, arguments={"read_file": bad})):
        store.promote("filesystem", adapters)
    (store.root / bad).chmod(0o755)
    (store.root / bad / "adapter_model.bin").touch()
    (store.root / "broken.manifest.json").write_text("{")

    status, out, _ = cli("list")
    header, first, second, manifest = out.splitlines()
    assert status == 0
    assert header.split() == ["adapter", "role", "rank", "profile", "size", "released", "in", "problem"]
    assert first.startswith(bad)
    assert "is a pickle" in first
    assert second.split() == [good, "selector", "8", "compact", "0.0", "MB", "2*", "1"]
    assert header.index("released in") == first.index("2*") == second.index("2*")
    assert "broken.manifest.json is broken" in manifest

    listed = json.loads(cli("list", "--json")[1])
    assert [(adapter["name"], adapter["releases"], adapter["serves"]) for adapter in listed["adapters"]] == [
        (bad, [2], True), (good, [2, 1], True),
    ]  # fmt: skip
    assert listed["adapters"][1]["card"]["rank"] == 8
    assert list(listed["problems"]) == ["broken"]


@pytest.mark.parametrize(("arguments", "words"), [
    (("verify", "filesystem.select--000000000000"), "is not in"),
    (("verify", "../x"), "no adapter's name"),
    (("publish", "{tmp}/adapter", "--card", "{tmp}/nowhere.json"), "nowhere.json is not the card of an adapter: [Errno 2]"),
    (("publish", "{tmp}/adapter", "--card", "{tmp}/adapter/adapter_config.json"), "the card of an adapter: toolset: Field"),
    (("publish", "{tmp}/nowhere", "--card", "{tmp}/adapter/adapter_config.json"), "there is no {tmp}/nowhere/adapter_config"),
    (("promote", "filesystem", "--selector", "filesystem.select--000000000000"), "is not in"),
    (("rollback", "filesystem"), "toolset 'filesystem' has no release"),
])  # fmt: skip
def test_a_refusal_is_one_line_and_status_1(cli, base, tmp_path, arguments, words):
    write_adapter(tmp_path / "adapter", base)
    status, out, error = cli(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert (status, out) == (1, "")
    assert words.format(tmp=tmp_path) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [
    (), ("unknown",), ("verify",), ("publish", "x"), ("promote", "filesystem", "--arguments", "x"), ("prune", "--keep-days", "x"),
])  # fmt: skip
def test_a_wrong_command_line_is_status_2(cli, arguments):
    with pytest.raises(SystemExit) as left:
        cli(*arguments)
    assert left.value.code == 2


def test_it_is_a_program(tmp_path):
    done: Any = subprocess.run(
        [sys.executable, "-m", "services.engine.adapters", "--store", str(tmp_path / "nowhere"), "list"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the adapter store {tmp_path / 'nowhere'} cannot be read" in done.stderr
