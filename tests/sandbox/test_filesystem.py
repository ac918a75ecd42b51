"""The toolset that ships with the product: the official MCP filesystem server, in the real sandbox."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.sandbox.pin import live_tools
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolsets import Toolsets
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from tests.sandbox.conftest import served

ROOT = Path(__file__).parents[2] / "deploy" / "toolsets"
INSTALLED = (ROOT / "filesystem" / "node_modules").is_dir() and shutil.which("node") is not None

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.skipif(not INSTALLED, reason="run `npm ci --prefix deploy/toolsets/filesystem` and install Node.js"),
]

Files = Callable[..., Awaitable[ToolResult]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> SandboxSettings:
    workspace = tmp_path_factory.mktemp("filesystem") / "workspace"
    return SandboxSettings(port=0, toolsets_dir=ROOT, workspace_dir=workspace, drain_timeout_s=0)


@pytest.fixture(scope="module")
async def filesystem(shipped: SandboxSettings, anyio_backend: str) -> AsyncIterator[SandboxClient]:
    async with served(shipped) as (_, client):
        yield client


@pytest.fixture(scope="module")
def files(filesystem: SandboxClient) -> Files:
    async def call(tool: str, **arguments: object) -> ToolResult:
        spec = ToolCallSpec(toolset="filesystem", tool=tool, arguments=json.dumps(arguments), session_id="files")
        return await filesystem.call_tool(spec, timeout_s=30)

    return call


async def test_the_live_server_lists_exactly_the_pinned_tools(shipped: SandboxSettings) -> None:
    toolset = Toolsets(ROOT, shipped.ceiling()).get("filesystem")
    assert [listed.tool.openai() for listed in await live_tools(shipped, toolset)] == json.loads(
        (ROOT / "filesystem" / "tools.json").read_text()
    )


async def test_a_file_is_written_and_read_back(files: Files, shipped: SandboxSettings) -> None:
    await files("write_file", path="/workspace/note.txt", content="grüße\n")
    assert (await files("read_text_file", path="note.txt")).text == "grüße\n"
    assert (shipped.workspace_dir / "note.txt").read_text() == "grüße\n"
    assert "[FILE] note.txt" in (await files("list_directory", path="/workspace")).text


async def test_a_failure_of_the_tool_is_a_result(files: Files) -> None:
    missing = await files("read_text_file", path="/workspace/nothing.txt")
    assert (missing.outcome, "ENOENT" in missing.text) == ("tool_error", True)
    outside = await files("read_text_file", path="/etc/passwd")
    assert (outside.outcome, "outside allowed directories" in outside.text) == ("tool_error", True)


async def test_every_seed_file_ships(filesystem: SandboxClient) -> None:
    seeds = ROOT / "filesystem" / "workspace"
    names = {str(path.relative_to(seeds)) for path in seeds.rglob("*") if path.is_file()}
    assert names == {"README.txt", "notes/todo.txt", "notes/ideas.md", "data/prices.csv"}


def test_no_file_of_the_toolset_names_a_package_registry() -> None:
    for name in ("package.json", "package-lock.json", ".npmrc", "toolset.yaml"):
        text = (ROOT / "filesystem" / name).read_text()
        assert 'resolved"' not in text
        assert "registry." not in text
