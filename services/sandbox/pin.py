"""`python -m services.sandbox.pin NAME` writes deploy/toolsets/NAME/tools.json from what the live server lists.

A person runs it and reviews the difference: from then on the sandbox refuses a server that lists anything else.
"""

from __future__ import annotations

import asyncio
import json
import sys

from services.sandbox.app import create_driver, make_workspace
from services.sandbox.errors import SandboxUnusable
from services.sandbox.process import McpServer
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolsets import Toolset, Toolsets
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.tools import Tool


async def live_tools(settings: SandboxSettings, toolset: Toolset) -> list[Tool]:
    """What the toolset's server lists, started in the sandbox like any other.

    Raises:
        SandboxError: it could not be started or did not answer.
    """
    make_workspace(settings.workspace_dir, settings.sandbox_uid)
    driver = create_driver(settings)
    if problem := (await driver.probe()).problem:
        raise SandboxUnusable(problem)
    server = McpServer(toolset, driver=driver, workspace=settings.workspace_dir.resolve(), verify=False)
    server.start()
    try:
        await server.ready()
        return server.tools
    finally:
        server.kill()
        await server.gone()


def main() -> int:
    """Entry point; the one argument is the name of a toolset."""
    if len(sys.argv) != 2:
        print("usage: python -m services.sandbox.pin TOOLSET", file=sys.stderr)
        return 2
    settings = SandboxSettings()
    try:
        toolset = Toolsets(settings.toolsets_dir, settings.ceiling()).get(sys.argv[1], pinned=False)
        tools = asyncio.run(live_tools(settings, toolset))
    except AgentFluxError as error:
        print(error.message, file=sys.stderr)
        return 1
    path = toolset.directory / "tools.json"
    path.write_text(json.dumps([tool.openai() for tool in tools], indent=2, ensure_ascii=False) + "\n")
    print(f"{path}: {len(tools)} tools")
    return 0


if __name__ == "__main__":
    sys.exit(main())
