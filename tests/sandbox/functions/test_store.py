"""Who may call which function, what survives a restart, and what cannot be registered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.sandbox.errors import ArgumentsRejected, ToolsetNotReady, TooManyFunctions, UnknownToolset
from services.sandbox.functions.__main__ import main
from services.sandbox.functions.function import Function, checked
from services.sandbox.functions.store import FunctionStore
from services.sandbox.limits import Limits
from services.sandbox.settings import SandboxSettings
from services.shared.contracts.errors import Unavailable

SOURCE = "def greet(who='you'):\n    '''Greets.'''\n    return 'hello ' + who\n"
SCHEMA = b'{"type": "object", "properties": {"who": {"type": "string"}}}'


def function(source: str = SOURCE, name: str = "greet") -> Function:
    return checked(name, "Greets somebody.", SCHEMA, source)[0]


def store(tmp_path: Path, *, per_tenant: int = 10, own_at_once: bool = True) -> FunctionStore:
    made = FunctionStore(tmp_path / "functions", ceiling=Limits(), per_tenant=per_tenant, own_at_once=own_at_once)
    made.open()
    return made


def test_a_function_is_named_by_its_contents(tmp_path: Path) -> None:
    kept = store(tmp_path)
    first = kept.register(function(), "acme")
    assert kept.register(function(), "acme") == first
    second = kept.register(function(SOURCE + "# new\n"), "acme")
    assert first.function.toolset != second.function.toolset
    assert (first.versions, second.versions) == ({"acme": 1}, {"acme": 2})
    assert kept.register(function(), "other").versions == {"acme": 1, "other": 1}


def test_others_see_it_after_approval_and_not_after_it_was_revoked(tmp_path: Path) -> None:
    kept = store(tmp_path)
    name = kept.register(function(), "acme").function.toolset
    assert kept.toolset(name, "acme").tools[0].name == "greet"
    with pytest.raises(UnknownToolset, match=f"tenant 'other' has no function '{name}'"):
        kept.toolset(name, "other")
    assert kept.seen_by("other") == []
    kept.approve(name, "an operator")
    assert kept.toolset(name, "other").scope == "call"
    assert len(kept.seen_by("other")) == 1
    kept.approve(name, "")
    with pytest.raises(UnknownToolset):
        kept.toolset(name, "other")


def test_the_operator_may_ask_for_approval_in_any_case(tmp_path: Path) -> None:
    kept = store(tmp_path, own_at_once=False)
    name = kept.register(function(), "acme").function.toolset
    with pytest.raises(ToolsetNotReady, match=f"waits for approval: .* python -m services.sandbox.functions approve {name}"):
        kept.toolset(name, "acme")
    kept.approve(name, "an operator")
    assert kept.toolset(name, "acme").name == name


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    before = store(tmp_path)
    name = before.register(function(), "acme").function.toolset
    before.approve(name, "an operator")
    (tmp_path / "functions" / "toolsets" / name / "server.py").write_text("of an older release")
    after = store(tmp_path)
    assert after.seen_by("acme") == before.seen_by("acme")
    assert after.toolset(name, "other").tools == before.toolset(name, "other").tools
    assert "MCP server" in (tmp_path / "functions" / "toolsets" / name / "server.py").read_text()


def test_a_record_that_somebody_changed_is_refused(tmp_path: Path) -> None:
    kept = store(tmp_path)
    name = kept.register(function(), "acme").function.toolset
    path = tmp_path / "functions" / "records" / f"{name}.json"
    row = json.loads(path.read_text())
    row["function"]["source"] += "import os\n"
    path.write_text(json.dumps(row))
    with pytest.raises(ToolsetNotReady, match="is not what was registered"):
        kept.toolset(name, "acme")


def test_a_tenant_has_so_many_and_no_more(tmp_path: Path) -> None:
    kept = store(tmp_path, per_tenant=2)
    for number in range(2):
        kept.register(function(SOURCE + f"# {number}\n"), "acme")
    with pytest.raises(TooManyFunctions, match="AGENTFLUX_SANDBOX_FUNCTIONS_PER_TENANT"):
        kept.register(function(), "acme")
    kept.register(function(), "other")


@pytest.mark.parametrize("name", ["fn-../../etc", "fn-a/b", "fn-" + "x" * 5000, "fn-", "fn-nope-0123456789abcdef", "fn-a\0b"])
def test_names_that_lead_elsewhere_are_unknown(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownToolset):
        store(tmp_path).toolset(name, "acme")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "X"}, "name"),
        ({"description": " "}, "description"),
        ({"description": "x" * 5000}, "description"),
        ({"source": "def greet(:"}, "source"),
        ({"source": "x = 1"}, "source"),
        ({"source": "#" * 70_000}, "source"),
        ({"source": "def greet(): pass\0"}, "source"),
        ({"parameters_json": b"[]"}, "parameters_json"),
        ({"parameters_json": b'{"type": "string"}'}, "parameters_json"),
        ({"parameters_json": b'{"type": "object", "properties": {"a": {"type": 7}}}'}, "parameters_json"),
        ({"parameters_json": b'{"type": "object", "properties": {"a": {"$ref": "http://example.com/a"}}}'}, "parameters_json"),
        ({"parameters_json": b'{"type": "object", "a": ' + b"[" * 5000}, "parameters_json"),
        ({"parameters_json": b'{"type": "object", "x": "' + b"x" * 40_000 + b'"}'}, "parameters_json"),
    ],
)  # fmt: skip
def test_what_can_never_work_is_refused_with_the_field(changed: dict[str, object], field: str) -> None:
    given: dict[str, object] = {"name": "greet", "description": "Greets.", "parameters_json": SCHEMA, "source": SOURCE, **changed}
    with pytest.raises(ArgumentsRejected) as refused:
        checked(**given)  # type: ignore[arg-type]
    assert [name for name, _ in refused.value.violations] == [field]
    assert len(refused.value.message) < 1000


def test_the_operator_reads_and_approves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTFLUX_SANDBOX_FUNCTIONS_DIR", str(tmp_path / "functions"))
    kept = store(tmp_path)
    name = kept.register(function(SOURCE + "# \x1b[2K\u202e\n"), "acme").function.toolset
    assert main(["list"]) == 0
    assert "acme v1  not approved" in capsys.readouterr().out
    assert main(["show", name]) == 0
    shown = capsys.readouterr().out
    assert "return 'hello '" in shown
    assert "\\x1b[2K\\u202e" in shown
    assert main(["approve", name]) == 0
    assert kept.toolset(name, "other").name == name
    assert main(["approve", "fn-nope"]) == 1
    assert "there is no function 'fn-nope'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["functions_dir", "trajectory_dir"])
def test_neither_functions_nor_the_log_may_lie_where_tools_write(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} .* is below workspace_dir .*, where tools write"):
        SandboxSettings.model_validate({"workspace_dir": tmp_path / "work", name: tmp_path / "work" / "x" / ".." / "here"})


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    kept = store(tmp_path)
    toolsets = tmp_path / "functions" / "toolsets"
    toolsets.rmdir()
    toolsets.write_text("in the way")
    with pytest.raises(Unavailable, match=r"cannot be kept in .*Not a directory"):
        kept.register(function(), "acme")
