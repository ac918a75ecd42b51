"""One call, from request to result: is the toolset there, are the arguments right, get a server, call it, cut to size."""

from __future__ import annotations

import time
from dataclasses import dataclass

import orjson
from mcp_types import CallToolResult, TextContent

from services.sandbox.drivers.driver import Capabilities, Driver
from services.sandbox.errors import SandboxError, SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import Block, cut, output_cap, wall_time
from services.sandbox.metrics import SandboxMetrics, reason_of
from services.sandbox.pool import ServerPool
from services.sandbox.toolsets import Toolset, Toolsets
from services.shared.contracts.execution import ToolsetInfo
from services.shared.contracts.tools import Tool


@dataclass(frozen=True)
class Call:
    """What is asked. `arguments` is JSON text; `asked_s` and `remaining_s` are seconds, None where nothing was said."""

    toolset: str
    tool: str
    arguments: bytes = b""
    session_id: str = ""
    max_output_bytes: int = 0
    asked_s: float | None = None
    remaining_s: float | None = None


@dataclass(frozen=True)
class Result:
    """What the tool said, cut to size, and what it took; `start_s` and `run_s` are seconds."""

    is_error: bool
    blocks: list[Block]
    structured: bytes
    truncated: bool
    start_s: float
    run_s: float
    cold_start: bool

    @property
    def output_bytes(self) -> int:
        """Bytes of blocks and structured result together."""
        return sum(block.size for block in self.blocks) + len(self.structured)


class Runner:
    """The sandbox without its wire. `capabilities` is what the last probe found."""

    def __init__(self, *, driver: Driver, toolsets: Toolsets, pool: ServerPool, metrics: SandboxMetrics) -> None:
        self._driver = driver
        self._toolsets = toolsets
        self._pool = pool
        self._metrics = metrics
        self.capabilities = Capabilities("none", problem="the sandbox has not been probed yet: try again in a second")

    async def probe(self) -> Capabilities:
        """Tries the isolation and remembers what it enforces."""
        self.capabilities = await self._driver.probe()
        self._metrics.serving.set(0 if self.capabilities.problem else 1)
        return self.capabilities

    def list_toolsets(self) -> list[ToolsetInfo]:
        """Every toolset, and why it is not ready where it is not."""
        return [self._info(name) for name in self._toolsets.names()]

    def list_tools(self, toolset: str) -> list[Tool]:
        """The pinned tools of one toolset.

        Raises:
            UnknownToolset, ToolsetNotReady.
        """
        return list(self._toolsets.get(toolset).tools)

    async def call(self, call: Call) -> Result:
        """Runs one tool.

        Raises:
            SandboxError: there is no result; the class says why.
        """
        outcome = "INTERNAL"
        started = time.perf_counter()
        # Only a toolset that exists becomes a label: a caller's typing errors must not create series.
        toolset = self._toolsets.get(call.toolset)
        try:
            result = await self._run(toolset, call)
            outcome = "tool_error" if result.is_error else "ok"
            return result
        except BaseException as error:
            outcome = reason_of(error)
            raise
        finally:
            self._metrics.duration.labels(toolset.name, outcome).observe(time.perf_counter() - started)

    async def _run(self, toolset: Toolset, call: Call) -> Result:
        checker = toolset.checker(call.tool)
        arguments = checker.check(call.arguments)
        self._require_ready(toolset)
        started = time.perf_counter()
        wall_s = wall_time(toolset.limits, asked_s=call.asked_s, remaining_s=call.remaining_s)
        async with self._pool.server(toolset, call.session_id, wall_s=wall_s) as (server, cold):
            ready = time.perf_counter()
            said = await server.call(call.tool, arguments)
            done = time.perf_counter()
        if cold:
            self._metrics.cold_start.labels(toolset.name).observe(ready - started)
        blocks, structured = _blocks(said)
        blocks, structured, truncated = cut(blocks, structured, output_cap(toolset.limits, call.max_output_bytes))
        return Result(bool(said.is_error), blocks, structured, truncated, ready - started, done - ready, cold)

    def _info(self, name: str) -> ToolsetInfo:
        try:
            toolset = self._toolsets.get(name)
            info = ToolsetInfo(name=name, description=toolset.description, ready=True)
            self._require_ready(toolset)
        except SandboxError as error:
            return ToolsetInfo(name=name, ready=False, reason=error.message)
        return info

    def _require_ready(self, toolset: Toolset) -> None:
        if self.capabilities.problem:
            raise SandboxUnusable(f"tools cannot be run: {self.capabilities.problem}")
        if missing := toolset.missing_files():
            advice = toolset.setup or "install what its server needs"
            raise ToolsetNotReady(f"toolset {toolset.name!r} lacks {missing[0]} in {toolset.directory}: {advice}")
        self._driver.resolve(toolset.command[0])


def _blocks(said: CallToolResult) -> tuple[list[Block], bytes]:
    blocks = [
        Block(text=part.text)
        if isinstance(part, TextContent)
        else Block(json=part.model_dump_json(by_alias=True, exclude_none=True).encode())
        for part in said.content
    ]
    return blocks, b"" if said.structured_content is None else orjson.dumps(said.structured_content)
