"""Every toolset that ships, with its real server in the real sandbox, offline: it lists what is pinned, and is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from services.sandbox.drivers.programs import find_bwrap
from services.sandbox.pinning import PinnedTool, locked_package, read_tools
from services.sandbox.settings import SandboxSettings
from services.sandbox.suspicious import lookalikes, suspicious
from services.sandbox.toolset_file import read_toolset_file
from services.sandbox.toolsets import Toolset, Toolsets
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import InvalidRequest
from tests.sandbox.conftest import served
from tests.sandbox.drivers import NO_RUNSC
from tests.sandbox.shipped import NAMES, ROOT, TRIALS, call, make_repository, tried
from tests.sandbox.test_drivers_external import CONTAINER

NEED_TOKENS = {"monday": "MONDAY_TOKEN", "notion": "NOTION_TOKEN"}
HERE = SandboxSettings().ceiling()

Test = TypeVar("Test", bound=Callable[..., object])


def real(test: Test) -> Test:
    for mark in (pytest.mark.anyio, pytest.mark.real):
        test = mark(test)
    return test


def toolset(name: str) -> Toolset:
    return Toolsets(ROOT, HERE).get(name)


def installed(name: str) -> None:
    lacking = replace(toolset(name), secrets=()).not_ready()
    if lacking or shutil.which("node") is None:
        pytest.skip(lacking or "Node.js is not installed")


def test_these_ship() -> None:
    assert NAMES == ["everything", "filesystem", "git", "memory", "monday", "notion", "time"]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_pinned_and_can_be_read(name: str) -> None:
    shipped = toolset(name)
    assert shipped.tools
    assert shipped.package is not None
    assert shipped.setup
    assert shipped.description


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_package_registry_and_every_package_has_a_hash(name: str) -> None:
    package = read_toolset_file(ROOT / name / "toolset.yaml").package
    assert package is not None
    assert locked_package(ROOT / name, package.registry, package.name, package.version).integrity.startswith("sha")
    lock = ROOT / name / "package-lock.json"
    if lock.exists():
        packages = json.loads(lock.read_text())["packages"]
        assert [path for path, entry in packages.items() if path and "integrity" not in entry] == []
        assert '"resolved"' not in lock.read_text()
        assert "omit-lockfile-registry-resolved=true" in (ROOT / name / ".npmrc").read_text()


def test_none_is_suspicious_and_no_two_have_a_tool_that_could_be_mixed_up() -> None:
    tools = {name: read_tools(ROOT / name) for name in NAMES}
    assert {name: flag for name, each in tools.items() for tool in each for flag in suspicious(PinnedTool(tool))} == {}
    assert lookalikes({name: [tool.name for tool in each] for name, each in tools.items()}) == []


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SandboxSettings:
    workspace = tmp_path_factory.mktemp("shipped") / "workspace"
    return SandboxSettings(port=0, toolsets_dir=ROOT, workspace_dir=workspace, drain_timeout_s=0)


@pytest.fixture(scope="module")
async def client(settings: SandboxSettings, anyio_backend: str) -> AsyncIterator[SandboxClient]:
    async with served(settings) as (_, client):
        yield client


@real
@pytest.mark.parametrize("name", sorted(NEED_TOKENS))
async def test_without_a_token_its_tools_are_listed_and_not_run(name: str, client: SandboxClient) -> None:
    [info] = [info for info in await client.list_toolsets() if info.name == name]
    assert not info.ready
    assert NEED_TOKENS[name] in info.reason or "make toolsets" in info.reason
    tools = await client.list_tools(name)
    assert len(tools) > 20
    [simple] = [tool for tool in tools if tool.name in ("API-get-self", "get_user_context")]
    with pytest.raises(InvalidRequest, match=r"AGENTFLUX_SANDBOX_SECRETS_DIR|make toolsets"):
        await call(client, name, simple.name)


@real
async def test_filesystem(client: SandboxClient) -> None:
    installed("filesystem")
    await call(client, "filesystem", "write_file", path="/workspace/note.txt", content="grüße")
    assert (await call(client, "filesystem", "read_text_file", path="/workspace/note.txt")).text == "grüße"


@real
async def test_memory(client: SandboxClient, settings: SandboxSettings) -> None:
    installed("memory")
    entity = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
    await call(client, "memory", "create_entities", entities=[entity])
    found = await call(client, "memory", "search_nodes", query="first program")
    assert isinstance(found.structured, dict)
    assert [each["name"] for each in found.structured["entities"]] == ["Ada"]
    assert (settings.workspace_dir / "memory.jsonl").exists()


@real
async def test_everything(client: SandboxClient) -> None:
    installed("everything")
    assert (await call(client, "everything", "get-sum", a=2, b=3)).text == "The sum of 2 and 3 is 5."
    structured = await call(client, "everything", "get-structured-content", location="Chicago")
    assert isinstance(structured.structured, dict)
    assert "temperature" in structured.structured
    assert "AGENTFLUX" not in (await call(client, "everything", "get-env")).text


@real
async def test_time(client: SandboxClient) -> None:
    installed("time")
    said = await call(client, "time", "convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Kolkata")
    assert json.loads(said.text)["target"]["datetime"].endswith("T17:30:00+05:30")


@real
async def test_git(client: SandboxClient, settings: SandboxSettings) -> None:
    installed("git")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    make_repository(settings.workspace_dir / "repository")
    assert "a.txt" in (await call(client, "git", "git_status", repo_path="/workspace/repository")).text
    await call(client, "git", "git_add", repo_path="/workspace/repository", files=["a.txt"])
    assert (await call(client, "git", "git_commit", repo_path="/workspace/repository", message="First.")).outcome == "ok"
    assert "First." in (await call(client, "git", "git_log", repo_path="/workspace/repository")).text
    assert (await call(client, "git", "git_status", repo_path="/workspace")).outcome == "tool_error"


def ready() -> list[str]:
    """Those that are installed here."""
    return [name for name in NAMES if not replace(toolset(name), secrets=()).not_ready() and shutil.which("node")]


def unexpected(answers: dict[str, str], without_network: str) -> dict[str, str]:
    """The answers that are not as they should be."""
    expected = {name: TRIALS[name].expected if name in TRIALS else without_network for name in answers}
    return {name: said for name, said in answers.items() if expected[name] not in said}


@real
@pytest.mark.skipif(NO_RUNSC, reason="gVisor is NOT tested here: no runsc in PATH, or not root")
async def test_the_servers_list_and_answer_under_gvisor(tmp_path: Path) -> None:
    answers = await tried("runsc", tmp_path / "workspace", ready())
    assert unexpected(answers, without_network="ready") == {}
    assert answers


@real
@pytest.mark.parametrize("name", sorted(NEED_TOKENS))
async def test_with_any_token_a_server_that_needs_one_lists_what_is_pinned_without_network(name: str, tmp_path: Path) -> None:
    installed(name)
    assert await tried("bwrap", tmp_path / "workspace", [name]) == {name: "ready"}


@pytest.mark.real
def test_the_servers_list_and_answer_in_a_container_that_is_the_boundary() -> None:
    names = ready()
    command = [str(find_bwrap(None)), *CONTAINER, "--", sys.executable, "-m", "tests.sandbox.shipped", "external"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, "/tmp/workspace", *names], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert list(answers) == names
    # Its servers can be listed and started; what the container cannot give to one of them alone is a list of destinations.
    assert unexpected(answers, without_network="the driver external cannot enforce network, a list of destinations") == {}
