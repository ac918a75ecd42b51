"""Whose tools a request's tools are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.gateway.toolsets import Catalogue, Toolset, read_catalogue
from services.gateway.wire.requests import MAX_TOOLS
from services.shared.contracts.errors import ModelNotFound
from services.shared.contracts.tools import Tool, tools_digest
from tests.fakes import tool

READ = tool("read_file", path={"type": "string", "description": "Where it is"}, head={"type": "number"})
LIST = tool("list_directory", path={"type": "string"})
MOVE = tool("move_file", source={"type": "string"}, destination={"type": "string"})


def catalogue(**toolsets: list[Tool]) -> Catalogue:
    return Catalogue("base", [Toolset(name, tools, tools_digest(tools)) for name, tools in toolsets.items()])


def test_the_tools_of_a_toolset_are_known_in_any_order() -> None:
    found = catalogue(files=[READ, LIST, MOVE]).toolset_of([MOVE, READ, LIST])
    assert found is not None
    assert (found.name, found.tools) == ("files", ["read_file", "list_directory", "move_file"])
    assert found.digest == tools_digest([READ, LIST, MOVE])


def test_what_frameworks_do_to_schemas_makes_no_stranger_of_a_tool() -> None:
    rewritten = Tool(
        name="read_file",
        description="Reads.",
        parameters={
            "type": "object",
            "title": "ReadFile",
            "properties": {"path": {"type": "string"}, "head": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "required": ["path", "head"],
            "additionalProperties": False,
        },
    )
    found = catalogue(files=[READ, LIST]).toolset_of([rewritten, LIST])
    assert found is not None
    assert found.name == "files"


def test_an_adapter_is_no_model_to_ask_and_its_toolset_is() -> None:
    with pytest.raises(ModelNotFound, match=r"is an adapter.* ask for its toolset, model 'files'"):
        catalogue(files=[READ]).default_tools("files.read_file--0123456789ab")
    with pytest.raises(ModelNotFound, match=r"there is no model 'other\.select"):
        catalogue(files=[READ]).default_tools("other.select--0123456789ab")


def test_callers_may_leave_tools_out() -> None:
    found = catalogue(files=[READ, LIST, MOVE]).toolset_of([LIST])
    assert found is not None
    assert len(found.tools) == 3


def test_of_two_toolsets_that_fit_the_smaller_one_is_meant() -> None:
    found = catalogue(all=[READ, LIST, MOVE], reading=[READ, LIST]).toolset_of([READ])
    assert found is not None
    assert found.name == "reading"


def test_one_stranger_or_another_parameter_belongs_to_no_toolset() -> None:
    known = catalogue(files=[READ, LIST])
    assert known.toolset_of([READ, tool("get_weather", city={})]) is None
    assert known.toolset_of([tool("read_file", file={"type": "string"})]) is None
    assert known.toolset_of([]) is None
    odd = Tool(name="list_directory", parameters={"type": "object", "properties": ["path"]})
    assert known.toolset_of([odd]) is None


def test_parameters_get_the_registered_order_on_every_level_and_keep_what_the_client_says_of_them() -> None:
    edit = tool("edit_file", path={}, edits={"type": "array", "items": {"properties": {"oldText": {}, "newText": {}}}}, dryRun={})
    known = catalogue(files=[edit, LIST])
    edits = {"type": "array", "items": {"properties": {"newText": {"title": "New"}, "oldText": {}}, "required": ["newText"]}}
    sent = tool("edit_file", dryRun={"type": "boolean"}, edits=edits, path={"type": "string"})
    toolset = known.toolset_of([sent, LIST])
    assert toolset is not None
    first, second = (known.in_order(toolset, one) for one in (sent, LIST))
    assert list(first.parameters["properties"]) == ["path", "edits", "dryRun"]
    assert list(first.parameters["properties"]["edits"]["items"]["properties"]) == ["oldText", "newText"]
    assert (first, second) == (sent, LIST)


def test_a_toolset_of_more_tools_than_a_decision_can_have_is_left_out_and_the_others_serve(tmp_path: Path) -> None:
    for name, many in (("largest", MAX_TOOLS), ("too_large", MAX_TOOLS + 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tools.json").write_text(json.dumps([tool(f"t{number}").openai() for number in range(many)]))
    with capture_logs() as logs:
        assert read_catalogue("base", tmp_path).models == ["base", "largest"]
    [told] = logs
    assert told["error"].startswith(f"it has {MAX_TOOLS + 1} tools")
    assert "too_large" in told["file"]
