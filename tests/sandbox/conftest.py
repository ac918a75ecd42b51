"""The real service with toolsets of our own: one directory per way in which the hostile server can start."""

from __future__ import annotations

import os

# As services/sandbox/__main__.py does, before anything here imports gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from services.sandbox.app import Sandbox, running
from services.sandbox.pinning import Package, PinnedTool, lock_of
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from services.shared.contracts.tools import Tool
from tests.sandbox.hostile import server as hostile

HOSTILE = Path(hostile.__file__)
PYTHON = "/usr/bin/python3"
STARTS = ("well", "exit", "hang", "hang-at-list", "chatter", "garbage", "drift")
LIMITS = {"wall_s": 10, "start_s": 5, "memory_bytes": 256 * 1024 * 1024, "processes": 24, "output_bytes": 64 * 1024}

Call = Callable[..., Awaitable[ToolResult]]


def write_toolset(directory: Path, **entries: object) -> Path:
    """A toolset in `directory`, pinned to the hostile server's tools."""
    directory.mkdir(parents=True)
    shutil.copy(HOSTILE, directory / "server.py")
    (directory / "toolset.yaml").write_text(yaml.safe_dump(entries))
    pin(
        directory,
        [
            PinnedTool(Tool(name=tool["name"], description=tool["description"], parameters=tool["inputSchema"]))
            for tool in hostile.listed()
        ],
    )
    return directory


def pin(directory: Path, tools: list[PinnedTool], package: Package | None = None) -> None:
    """Approves `tools` for the toolset in `directory`."""
    (directory / "tools.json").write_text(json.dumps([tool.tool.openai() for tool in tools]))
    (directory / "toolset.lock.json").write_text(json.dumps(lock_of(tools, package)))


@pytest.fixture(scope="session")
def toolsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`well`, `exit`, …: the hostile server, started in each way."""
    root = tmp_path_factory.mktemp("toolsets")
    for start in STARTS:
        limits = {**LIMITS, "start_s": 1} if start.startswith("hang") else LIMITS
        write_toolset(root / start, command=[PYTHON, "/toolset/server.py", start], limits=limits)
    write_toolset(root / "brief", command=[PYTHON, "/toolset/server.py", "well"], limits={**LIMITS, "wall_s": 1})
    # Tools run as another user when the tests run as root.
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="session")
def settings(toolsets: Path, tmp_path_factory: pytest.TempPathFactory) -> SandboxSettings:
    """A service of its own port and workspace, which it creates."""
    workspace = tmp_path_factory.mktemp("sandbox") / "workspace"
    return SandboxSettings(port=0, toolsets_dir=toolsets, workspace_dir=workspace, drain_timeout_s=0)


@asynccontextmanager
async def served(settings: SandboxSettings) -> AsyncIterator[tuple[Sandbox, SandboxClient]]:
    """The service and a client that is connected to it."""
    # Some tests run a second one on the same workspace; a log belongs to one.
    with TemporaryDirectory(prefix="agentflux-trajectories-") as own:
        settings = settings.model_copy(update={"trajectory_dir": settings.trajectory_dir or Path(own)})
        async with running(settings) as sandbox:
            client = SandboxClient(f"127.0.0.1:{sandbox.server.port}")
            try:
                yield sandbox, client
            finally:
                await client.aclose()


@pytest.fixture(scope="session")
async def service(settings: SandboxSettings, anyio_backend: str) -> AsyncIterator[tuple[Sandbox, SandboxClient]]:
    """One service for all tests: whatever they do to it, it has to go on serving."""
    async with served(settings) as pair:
        yield pair


@pytest.fixture(scope="session")
def client(service: tuple[Sandbox, SandboxClient]) -> SandboxClient:
    """The client of `service`."""
    return service[1]


@pytest.fixture(scope="session")
def call(client: SandboxClient) -> Call:
    """`await call("echo", "hello")`: one tool of the toolset `well`, in a server of its own unless a session is named."""

    async def run(tool: str, text: str = "", *, toolset: str = "well", session: str = "", timeout_s: float = 10) -> ToolResult:
        spec = ToolCallSpec(toolset=toolset, tool=tool, arguments=json.dumps({"text": text}), session_id=session)
        return await client.call_tool(spec, timeout_s=timeout_s)

    return run


@pytest.fixture(scope="session")
def inside(call: Call) -> Callable[[str], Awaitable[str]]:
    """`await inside("os.getuid()")`: a Python expression evaluated inside the sandbox; its value or error as text."""

    async def run(expression: str) -> str:
        return (await call("python", expression, session="inside")).text

    return run
