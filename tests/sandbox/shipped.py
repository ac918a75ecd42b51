"""One real call to each shipped server, under any driver.

`python -m tests.sandbox.shipped DRIVER WORKSPACE TOOLSET…` tries those servers and prints as JSON what each said, for where the
service itself has to run in a container.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As services/sandbox/__main__.py does, before anything here imports gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from services.sandbox.pin import PLACEHOLDER, live_tools
from services.sandbox.pinning import differences
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolset_file import read_toolset_file
from services.sandbox.toolsets import Toolsets
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from tests.sandbox.conftest import served

ROOT = Path(__file__).parents[2] / "deploy" / "toolsets"
NAMES = sorted(path.parent.name for path in ROOT.glob("*/toolset.yaml"))


@dataclass(frozen=True)
class Trial:
    """A call whose answer has `expected` in it. `{workspace}` in an argument is where the workspace is for the server."""

    tool: str
    arguments: dict[str, Any]
    expected: str


# Of monday.com and Notion nothing can be called offline.
TRIALS = {
    "everything": Trial("get-sum", {"a": 2, "b": 3}, "The sum of 2 and 3 is 5."),
    "filesystem": Trial("write_file", {"path": "{workspace}/note.txt", "content": "grüße"}, "Successfully wrote"),
    "git": Trial("git_status", {"repo_path": "{workspace}/repository"}, "a.txt"),
    "memory": Trial("create_entities", {"entities": [{"name": "Ada", "entityType": "person", "observations": []}]}, "Ada"),
    "time": Trial(
        "convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kolkata"}, "T17:30:00+05:30"
    ),
}


def make_repository(repository: Path) -> None:
    """With one file that is not committed."""
    repository.mkdir()
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True, timeout=20)
    (repository / "a.txt").write_text("a\n")
    # Tools run as another user when the tests run as root, and git wants the repository to be that user's.
    owner = repository.parent.stat()
    for path in [repository, *repository.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)


async def call(client: SandboxClient, name: str, tool: str, **arguments: object) -> ToolResult:
    """One call, in the session that all of them share."""
    spec = ToolCallSpec(toolset=name, tool=tool, arguments=json.dumps(arguments), session_id="shipped")
    return await client.call_tool(spec, timeout_s=60)


async def tried(driver: str, workspace: Path, names: Sequence[str]) -> dict[str, str]:
    """What each server answers to its trial, or why it answers nothing; every start checks its list against what is pinned."""
    with tempfile.TemporaryDirectory(prefix="agentflux-shipped-") as folder:
        for name in names:
            for secret in read_toolset_file(ROOT / name / "toolset.yaml").secrets:
                (Path(folder) / secret.file).write_bytes(PLACEHOLDER)
        settings = SandboxSettings(
            port=0, driver=driver, toolsets_dir=ROOT, workspace_dir=workspace, secrets_dir=Path(folder), drain_timeout_s=0
        )
        async with served(settings) as (_, client):
            if "git" in names:
                make_repository(workspace / "repository")
            return {
                name: await (_called(client, settings, name) if name in TRIALS else _listed(client, settings, name))
                for name in names
            }


async def _called(client: SandboxClient, settings: SandboxSettings, name: str) -> str:
    # The container's own view of its files is its servers' view, too.
    inside = str(settings.workspace_dir) if settings.driver == "external" else "/workspace"
    trial = TRIALS[name]
    arguments = {
        key: value.replace("{workspace}", inside) if isinstance(value, str) else value for key, value in trial.arguments.items()
    }
    try:
        return (await call(client, name, trial.tool, **arguments)).text
    except AgentFluxError as error:
        return error.message


async def _listed(client: SandboxClient, settings: SandboxSettings, name: str) -> str:
    """What differs in its list; as nothing of it can be called offline, else whether it could be."""
    toolset = Toolsets(settings.toolsets_dir, settings.ceiling()).get(name)
    try:
        differing = differences(toolset.pinned, await live_tools(settings, toolset))
    except AgentFluxError as error:
        return error.message
    [info] = [info for info in await client.list_toolsets() if info.name == name]
    return "; ".join(map(str, differing)) or info.reason or "ready"


if __name__ == "__main__":
    print(json.dumps(asyncio.run(tried(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))))
