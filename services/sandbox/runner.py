"""One call, from request to result: is the toolset there, are the arguments right, get a server, call it, cut to size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from mcp_types import CallToolResult, TextContent

from services.sandbox.drivers.driver import Capabilities, Driver
from services.sandbox.errors import SandboxError, SandboxUnusable, ToolsetNotReady
from services.sandbox.functions.function import PREFIX
from services.sandbox.functions.store import FunctionStore
from services.sandbox.limits import Block, cut, output_cap, wall_time
from services.sandbox.metrics import SandboxMetrics, reason_of
from services.sandbox.pinning import PinnedTool
from services.sandbox.pool import ServerPool
from services.sandbox.progress import Progress
from services.sandbox.toolsets import Toolset, Toolsets
from services.sandbox.trajectory.log import TrajectoryLog
from services.shared.chassis.telemetry import exemplar
from services.shared.contracts.execution import ToolsetInfo
from services.shared.contracts.tools import Tool


@dataclass(frozen=True)
class Call:
    """What is asked. `arguments` is JSON text; `asked_s` and `remaining_s` are seconds, None where nothing was said."""

    toolset: str
    tool: str
    arguments: bytes = b""
    session_id: str = ""
    call_id: str = ""
    tenant: str = "default"
    max_output_bytes: int = 0
    asked_s: float | None = None
    remaining_s: float | None = None
    on_progress: Progress | None = field(default=None, compare=False, repr=False)


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

    def __init__(
        self,
        *,
        driver: Driver,
        workspace: Path,
        toolsets: Toolsets,
        pool: ServerPool,
        metrics: SandboxMetrics,
        trajectories: TrajectoryLog,
        functions: FunctionStore | None = None,
    ) -> None:
        self._driver = driver
        self._workspace = workspace
        self._toolsets = toolsets
        self._pool = pool
        self._metrics = metrics
        self._trajectories = trajectories
        self._functions = functions
        self.capabilities = Capabilities("none", problem="the sandbox has not been probed yet: try again in a second")

    async def probe(self) -> Capabilities:
        """Tries the isolation and remembers what it enforces."""
        self.capabilities = await self._driver.probe()
        self._metrics.serving.set(0 if self.capabilities.problem else 1)
        return self.capabilities

    def list_toolsets(self, tenant: str = Call.tenant) -> list[ToolsetInfo]:
        """Every toolset that `tenant` may use, and why it is not ready where it is not."""
        registered = self._functions.seen_by(tenant) if self._functions else []
        names = [*self._toolsets.names(), *(each.function.toolset for each in registered)]
        return [self._info(name, tenant) for name in names]

    def versions(self) -> dict[str, str]:
        """The version of each toolset as its files are now, without those whose files cannot be used."""
        return {toolset.name: toolset.version for toolset in self._readable()}

    def startable(self) -> list[Toolset]:
        """The toolsets whose servers could be started now."""
        found = []
        for toolset in self._readable():
            with suppress(SandboxError):
                self._require_ready(toolset)
                found.append(toolset)
        return found

    def list_tools(self, toolset: str, tenant: str = Call.tenant) -> list[Tool]:
        """The pinned tools of one toolset.

        Raises:
            UnknownToolset, ToolsetNotReady.
        """
        return list(self._toolset(toolset, tenant).tools)

    def list_pinned(self, toolset: str, tenant: str = Call.tenant) -> list[PinnedTool]:
        """The same tools with all that is pinned of them: title, schema of the result, annotations.

        Raises:
            UnknownToolset, ToolsetNotReady.
        """
        return list(self._toolset(toolset, tenant).pinned)

    async def call(self, call: Call) -> Result:
        """Runs one tool, between its two records in the trajectory log.

        Raises:
            SandboxError: there is no result; the class says why.
        """
        known = self._known(call)
        with self._trajectories.recorded(call, known, self.capabilities) as record:
            # What is not known is looked up again, for the error that says why.
            result = await self._timed(known or self._toolset(call.toolset, call.tenant), call)
            record.finished(result)
            return result

    async def _timed(self, toolset: Toolset, call: Call) -> Result:
        outcome = "INTERNAL"
        started = time.perf_counter()
        # Only a toolset that exists becomes a label: a caller's typing errors must not create series.
        try:
            result = await self._run(toolset, call)
            outcome = "tool_error" if result.is_error else "ok"
            return result
        except BaseException as error:
            outcome = reason_of(error)
            raise
        finally:
            self._metrics.call(toolset.name, outcome).observe(time.perf_counter() - started, exemplar())

    async def _run(self, toolset: Toolset, call: Call) -> Result:
        checker = toolset.checker(call.tool)
        arguments = checker.check(call.arguments)
        self._require_sandbox()
        if not self._pool.has_server(toolset, call.tenant, call.session_id):
            self._require_ready(toolset)
        started = time.perf_counter()
        wall_s = wall_time(toolset.limits, asked_s=call.asked_s, remaining_s=call.remaining_s)
        async with self._pool.server(toolset, call.tenant, call.session_id, wall_s=wall_s) as (server, cold):
            ready = time.perf_counter()
            said = await server.call(call.tool, arguments, on_progress=call.on_progress)
            done = time.perf_counter()
            blocks, structured = _blocks(said)
            if call.tool in toolset.result_checkers and not said.is_error:
                # Inside, because a server that breaks its own schema is ended like one that breaks the protocol.
                toolset.result_checkers[call.tool].check(structured)
        if cold:
            self._metrics.cold_start.labels(self._metrics.toolset(toolset.name)).observe(ready - started)
        blocks, structured, truncated = cut(blocks, structured, output_cap(toolset.limits, call.max_output_bytes))
        return Result(bool(said.is_error), blocks, structured, truncated, ready - started, done - ready, cold)

    def _toolset(self, name: str, tenant: str) -> Toolset:
        if self._functions and name.startswith(PREFIX):
            return self._functions.toolset(name, tenant)
        return self._toolsets.get(name)

    def _known(self, call: Call) -> Toolset | None:
        try:
            return self._toolset(call.toolset, call.tenant)
        except SandboxError:
            return None

    def _info(self, name: str, tenant: str) -> ToolsetInfo:
        description = ""
        try:
            toolset = self._toolset(name, tenant)
            description = toolset.description
            self._require_ready(toolset)
            self._pool.require_stable(toolset)
        except SandboxError as error:
            return ToolsetInfo(name=name, description=description, ready=False, reason=error.message)
        return ToolsetInfo(name=name, description=description, ready=True)

    def _require_sandbox(self) -> None:
        if self.capabilities.problem:
            raise SandboxUnusable(f"tools cannot be run: {self.capabilities.problem}")

    def _require_ready(self, toolset: Toolset) -> None:
        self._require_sandbox()
        if problem := toolset.not_ready():
            raise ToolsetNotReady(problem)
        if toolset.command:
            self._driver.resolve(toolset.command[0])
            if refused := self._driver.refuses(toolset.spec(self._workspace)):
                raise ToolsetNotReady(refused)

    def _readable(self) -> Iterator[Toolset]:
        for name in self._toolsets.names():
            with suppress(SandboxError):
                yield self._toolsets.get(name)


def _blocks(said: CallToolResult) -> tuple[list[Block], bytes]:
    blocks = [
        Block(text=part.text)
        if isinstance(part, TextContent)
        else Block(json=part.model_dump_json(by_alias=True, exclude_none=True).encode())
        for part in said.content
    ]
    return blocks, b"" if said.structured_content is None else orjson.dumps(said.structured_content)
