"""What a toolset is, and what is said of a broken one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.sandbox.errors import ToolsetNotReady, UnknownToolset
from services.sandbox.limits import Limits
from services.sandbox.toolsets import Toolsets, differing_tools
from services.shared.contracts.tools import Tool
from tests.sandbox.conftest import write_toolset


def toolsets(directory: Path) -> Toolsets:
    return Toolsets(directory, Limits(wall_s=60))


def test_a_toolset_is_read_from_its_directory(tmp_path: Path) -> None:
    write_toolset(
        tmp_path / "files", command=["node", "x.js"], description="Files.", limits={"wall_s": 600}, environment={"A": 1}
    )
    toolset = toolsets(tmp_path).get("files")
    assert (toolset.name, toolset.command, toolset.description) == ("files", ("node", "x.js"), "Files.")
    assert toolset.limits.wall_s == 60
    assert toolset.environment == {"A": "1"}
    assert toolset.checker("echo").check(b"{}") == {}


@pytest.mark.parametrize("name", ["..", "../files", "/etc", "", "files/../files"])
def test_a_name_that_is_not_listed_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    write_toolset(tmp_path / "files", command=["x"])
    with pytest.raises(UnknownToolset, match="registered are: files"):
        toolsets(tmp_path).get(name)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("command: [", "toolset.yaml cannot be used"),
        ("[]", "toolset.yaml cannot be used"),
        ("description: x", "lacks 'command'"),
        ("command: rm -rf", "command must be a list"),
        ("{command: [x], colour: red}", "unknown entries"),
        ("{command: [x], limits: {walls: 1}}", "walls"),
        ("{command: [x], limits: {wall_s: soon}}", "wall_s must be a number"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, yaml: str, says: str) -> None:
    (write_toolset(tmp_path / "files", command=["x"]) / "toolset.yaml").write_text(yaml)
    with pytest.raises(ToolsetNotReady, match=says):
        toolsets(tmp_path).get("files")


def test_a_toolset_that_nobody_pinned_is_not_ready(tmp_path: Path) -> None:
    (write_toolset(tmp_path / "files", command=["x"]) / "tools.json").unlink()
    with pytest.raises(ToolsetNotReady, match=r"has no tools\.json; write it with: python -m services\.sandbox\.pin files"):
        toolsets(tmp_path).get("files")
    assert toolsets(tmp_path).get("files", pinned=False).tools == ()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    known = toolsets(tmp_path)
    path = write_toolset(tmp_path / "files", command=["x"]) / "toolset.yaml"
    before = known.get("files")
    assert known.get("files") is before
    path.write_text("command: [y]")
    os.utime(path, ns=(1, 1))
    assert known.get("files").command == ("y",)


def test_differing_tools_are_named() -> None:
    pinned = (Tool(name="same"), Tool(name="gone"), Tool(name="changed", description="a"))
    live = [Tool(name="same"), Tool(name="changed", description="b"), Tool(name="new")]
    assert differing_tools(pinned, live) == ["changed", "gone", "new"]
