"""What a pinned tool is, and that nothing of it changes unseen."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sandbox.pinning import (
    Package,
    PinnedTool,
    differences,
    lock_of,
    locked_package,
    named,
    read_lock,
    read_locked,
    read_tools,
)
from services.shared.contracts.tools import Tool, tools_digest
from tests.sandbox.conftest import pin

ROOT = Path(__file__).parents[2] / "deploy" / "toolsets"

TOOL = PinnedTool(
    Tool(
        name="write_file",
        description="Writes a file. Grüße.",
        parameters={
            "type": "object",
            "properties": {"path": {"type": "string"}, "mode": {"type": "integer", "default": 420}, "sync": {"default": True}},
            "required": ["path"],
        },
    ),
    title="Write File",
    output_schema={"type": "object", "properties": {"bytes": {"type": "number", "minimum": 0.5}}},
    annotations={"readOnlyHint": False, "destructiveHint": True},
)
PACKAGE = Package("npm", "@example/server", "1.2.3", "sha512-abc")


def changed(described: dict[str, Any]) -> PinnedTool:
    tool = Tool(name=described["name"], description=described["description"], parameters=described["inputSchema"])
    return PinnedTool(tool, described["title"], described["outputSchema"], described["annotations"])


def leaves(value: Any, put: Callable[[Any], None]) -> list[tuple[Any, Callable[[Any], None]]]:
    """Every value below `value`, and how to put another in its place."""
    found = [(value, put)]
    if isinstance(value, dict):
        for key in value:
            found += leaves(value[key], lambda new, key=key: value.__setitem__(key, new))
            found.append((key, lambda new, key=key: value.__setitem__(new, value.pop(key))))
    elif isinstance(value, list):
        for place in range(len(value)):
            found += leaves(value[place], lambda new, place=place: value.__setitem__(place, new))
    return found


@settings(max_examples=500, database=None)
@given(data=st.data())
def test_each_single_byte_counts(data: st.DataObject) -> None:
    described = copy.deepcopy(TOOL.described())
    sites = [
        (old, put)
        for field in described
        for old, put in leaves(described[field], lambda new, f=field: described.update({f: new}))
    ]
    old, put = data.draw(st.sampled_from([(old, put) for old, put in sites if not isinstance(old, dict | list)]))
    text = json.dumps(old, ensure_ascii=False).encode()
    place = data.draw(st.integers(0, len(text) - 1))
    other = bytearray(text)
    other[place] ^= data.draw(st.integers(1, 255))
    try:
        new = json.loads(bytes(other).decode())
    except ValueError:
        new = bytes(other).decode("latin-1")
    if isinstance(old, str) and not (isinstance(new, str) and new):
        new = f"{old}x"
    # Space around a number, or 4.2e2 for 420: other bytes, but not another value.
    if type(new) is type(old) and new == old:
        return
    put(new)
    assert changed(described).digest != TOOL.digest
    [found] = differences([TOOL], [changed(described)]) if described["name"] == TOOL.tool.name else [None]
    assert found is None or (found.old, found.new) == (TOOL.digest, changed(described).digest)


def shuffled(value: Any, order: Callable[[list[Any]], list[Any]]) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], order) for key in order(list(value))}
    return [shuffled(below, order) for below in value] if isinstance(value, list) else value


@settings(max_examples=100, database=None)
@given(data=st.data())
def test_the_order_of_keys_does_not_count(data: st.DataObject) -> None:
    again = changed(shuffled(TOOL.described(), lambda keys: data.draw(st.permutations(keys))))
    assert differences([TOOL], [again]) == []


def test_nothing_is_not_the_same_as_something_empty() -> None:
    bare = PinnedTool(Tool(name="a"))
    assert len({bare.digest, PinnedTool(bare.tool, "").digest, PinnedTool(bare.tool, None, {}).digest}) == 3


def test_a_difference_names_both_digests() -> None:
    other = PinnedTool(TOOL.tool, "Write it")
    new, gone = PinnedTool(Tool(name="new")), PinnedTool(Tool(name="gone"))
    said = named(differences([TOOL, gone], [other, new]))
    assert f"write_file changed (sha256 {TOOL.digest} is now {other.digest})" in said
    assert f"new is new (sha256 {new.digest})" in said
    assert f"gone is gone (sha256 {gone.digest})" in said


def test_a_long_list_of_differences_is_cut() -> None:
    said = named(differences([], [PinnedTool(Tool(name=f"t{number}")) for number in range(9)]))
    assert said.endswith("; and 4 more")


def test_a_lock_gives_the_tools_back(tmp_path: Path) -> None:
    pin(tmp_path, [TOOL], PACKAGE)
    [tool] = read_tools(tmp_path)
    assert read_lock(tmp_path, [tool], PACKAGE) == (TOOL,)
    assert read_locked(tmp_path, PACKAGE) == ((TOOL,), "")


def entry(**fields: Any) -> dict[str, Any]:
    return {**lock_of([TOOL], PACKAGE), **fields}


@pytest.mark.parametrize(
    ("lock", "says"),
    [
        (None, "nobody approved"),
        ("", "empty document"),
        ("[]", "must be an object"),
        ("{}", "must be an object"),
        ('{"version": NaN}', "line 1"),
        ("[" * 5000 + "]" * 5000, "nested deeper"),
        (json.dumps(entry(version=2)), "version"),
        (json.dumps(entry(tools=[])), "must be an object"),
        (json.dumps(entry(tools={})), "no entry for write_file"),
        (json.dumps(entry(tools={"write_file": TOOL.digest})), "no entry for write_file"),
        (json.dumps(entry(tools={"write_file": TOOL.locked(), "rm": {}})), "pins rm, which tools.json does not have"),
        (json.dumps(entry(tools={"write_file": {**TOOL.locked(), "title": "Read File"}})), "write_file is not what was approved"),
        (json.dumps(entry(package=None)), "approved for the package None"),
        (json.dumps(entry(package={**vars(PACKAGE), "integrity": "sha512-other"})), "sha512-other"),
    ],
)  # fmt: skip
def test_what_nobody_approved_is_refused(tmp_path: Path, lock: str | None, says: str) -> None:
    pin(tmp_path, [TOOL], PACKAGE)
    path = tmp_path / "toolset.lock.json"
    path.unlink() if lock is None else path.write_text(lock)
    with pytest.raises(ValueError, match=says):
        read_lock(tmp_path, read_tools(tmp_path), PACKAGE)
    assert read_locked(tmp_path, PACKAGE)[1]


def test_an_edited_tools_file_is_refused_too(tmp_path: Path) -> None:
    pin(tmp_path, [TOOL], PACKAGE)
    path = tmp_path / "tools.json"
    path.write_text(path.read_text().replace("Writes a file", "Reads a file"))
    with pytest.raises(ValueError, match="write_file is not what was approved: sha256 "):
        read_lock(tmp_path, read_tools(tmp_path), PACKAGE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "must be a list"),
        ("[1]", "entry 0 has no `function`"),
        ('[{"function": {"name": "a"}}, {"name": "b"}]', "entry 1 has no `function`"),
        ('[{"function": {"name": ""}}]', "name"),
        ('[{"function": {"name": "a"}}, {"function": {"name": "a"}}]', "lists a more than once"),
        (" " * (8 * 1024 * 1024 + 1), "at most 8388608"),
    ],
)  # fmt: skip
def test_a_tools_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_tools(tmp_path)


def test_the_package_is_what_the_lock_file_of_npm_has(tmp_path: Path) -> None:
    packages = {"node_modules/@example/server": {"version": "1.2.3", "integrity": "sha512-abc"}}
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": packages}))
    assert locked_package(tmp_path, "npm", "@example/server", "1.2.3") == PACKAGE
    with pytest.raises(ValueError, match=r"@example/server 1\.2\.4 is declared, but package-lock\.json has 1\.2\.3"):
        locked_package(tmp_path, "npm", "@example/server", "1.2.4")
    with pytest.raises(ValueError, match="no such package"):
        locked_package(tmp_path, "npm", "other", "1.2.3")


def test_the_package_is_what_the_requirements_have(tmp_path: Path) -> None:
    hashes = ["b" * 64, "a" * 64]
    lines = " \\\n".join(["server==1.2", *(f"    --hash=sha256:{each}" for each in hashes)])
    (tmp_path / "requirements.txt").write_text(f"# made\nfirst==1 \\\n    --hash=sha256:{'c' * 64}\n{lines}\nlast==2\n")
    assert locked_package(tmp_path, "pypi", "server", "1.2").integrity == f"sha256:{'a' * 64} sha256:{'b' * 64}"
    with pytest.raises(ValueError, match="has no hash for last 2"):
        locked_package(tmp_path, "pypi", "last", "2")
    with pytest.raises(ValueError, match=r"requirements\.txt has no such package"):
        locked_package(tmp_path / "nowhere", "pypi", "server", "1.2")


def test_the_digest_that_adapters_are_bound_to_stays() -> None:
    assert tools_digest(read_tools(ROOT / "filesystem")) == FILESYSTEM_DIGEST


FILESYSTEM_DIGEST = "160863e3f0ed0e28a0c49ba5ee2f720fb71bc358f81fb0715292ba815e08059e"
