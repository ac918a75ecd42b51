"""`python -m services.sandbox.pin NAME` shows what a toolset's server lists otherwise than it is pinned; `--approve` pins it.

Nothing is trusted on first use: a person reads the difference, for tool descriptions are what models read. Exit status 0: nothing
differs, or it was approved; 1: something differs; 2: it could not be told.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from services.sandbox.app import create_driver, make_workspace
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.pinning import LOCK_FILE, TOOLS_FILE, PinnedTool, differences, lock_of, read_locked, read_tools
from services.sandbox.process import McpServer
from services.sandbox.settings import SandboxSettings
from services.sandbox.suspicious import lookalikes, suspicious
from services.sandbox.toolsets import Toolset, Toolsets
from services.shared.contracts.errors import AgentFluxError

# Servers list their tools without asking anybody whether a token is good; and a placeholder can reach nobody.
PLACEHOLDER = b"placeholder-for-listing"


async def live_tools(settings: SandboxSettings, toolset: Toolset) -> list[PinnedTool]:
    """What the toolset's server lists, started in the sandbox like any other, but without network and real secrets.

    Raises:
        SandboxError: it could not be started or did not answer.
    """
    make_workspace(settings.workspace_dir, settings.sandbox_uid)
    driver = create_driver(settings)
    if problem := (await driver.probe()).problem:
        raise SandboxUnusable(problem)
    with tempfile.TemporaryDirectory(prefix="agentflux-pin-") as folder:
        placeholder = Path(folder) / "secret"
        placeholder.write_bytes(PLACEHOLDER)
        secrets = tuple(replace(secret, path=placeholder) for secret in toolset.secrets)
        alone = replace(toolset, network=(), secrets=secrets)
        if problem := alone.not_ready():
            raise ToolsetNotReady(problem)
        server = McpServer(alone, driver=driver, workspace=settings.workspace_dir.resolve(), verify=False)
        server.start()
        try:
            await server.ready()
            return server.listed
        finally:
            server.kill()
            await server.gone()


def shown(before: Sequence[PinnedTool], after: Sequence[PinnedTool]) -> Iterator[str]:
    """The difference, tool by tool, with old and new digest; hidden characters are written out."""
    old = {tool.tool.name: tool for tool in before}
    new = {tool.tool.name: tool for tool in after}
    for found in differences(before, after):
        yield f"{ascii(str(found))[1:-1]}"
        before_lines, after_lines = _lines(old.get(found.tool)), _lines(new.get(found.tool))
        yield from difflib.unified_diff(before_lines, after_lines, "pinned", "listed", lineterm="", n=2)
        yield ""


def flags(toolset: str, tools: Sequence[PinnedTool], toolsets_dir: Path) -> Iterator[str]:
    """What a person should look at before approving, in these tools and beside those of the other toolsets."""
    names = {toolset: [tool.tool.name for tool in tools]}
    for path in sorted(toolsets_dir.glob(f"*/{TOOLS_FILE}")):
        if path.parent.name != toolset:
            try:
                names[path.parent.name] = [tool.name for tool in read_tools(path.parent)]
            except (OSError, ValueError) as error:
                yield f"{path} cannot be compared: {error}"
    for tool in tools:
        yield from (f"{ascii(tool.tool.name)[1:-1]}: {flag}" for flag in suspicious(tool))
    yield from (flag for flag in lookalikes(names) if toolset in flag)


def approve(toolset: Toolset, tools: Sequence[PinnedTool]) -> None:
    """Writes both files. Between the two, the toolset is refused: one does not fit the other."""
    _write(toolset.directory / TOOLS_FILE, [tool.tool.openai() for tool in tools])
    _write(toolset.directory / LOCK_FILE, lock_of(tools, toolset.package))


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m services.sandbox.pin", description=__doc__)
    parser.add_argument("toolset", help="a folder of the toolsets")
    parser.add_argument(
        "--approve", action="store_true", help=f"write {TOOLS_FILE} and {LOCK_FILE} as the server lists its tools now"
    )
    given = parser.parse_args(argv)
    settings = SandboxSettings()
    try:
        toolset = Toolsets(settings.toolsets_dir, settings.ceiling(), settings.secrets_dir).get(given.toolset, pinned=False)
        tools = asyncio.run(live_tools(settings, toolset))
    except AgentFluxError as error:
        print(error.message, file=sys.stderr)
        return 2
    pinned, problem = read_locked(toolset.directory, toolset.package)
    for line in [*shown(pinned, tools), *(f"suspicious: {flag}" for flag in flags(toolset.name, tools, settings.toolsets_dir))]:
        print(line)
    if not problem and not differences(pinned, tools):
        print(f"{toolset.name}: {len(tools)} tools, as pinned")
        return 0
    if problem:
        print(f"{toolset.directory / LOCK_FILE}: {problem}")
    if not given.approve:
        print(f"{toolset.name}: not as pinned; to approve: python -m services.sandbox.pin {toolset.name} --approve")
        return 1
    approve(toolset, tools)
    print(f"{toolset.name}: {len(tools)} tools pinned")
    return 0


def _lines(tool: PinnedTool | None) -> list[str]:
    return json.dumps(tool.described(), indent=2, sort_keys=True).splitlines() if tool else []


def _write(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    fresh = path.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)


if __name__ == "__main__":
    sys.exit(main())
