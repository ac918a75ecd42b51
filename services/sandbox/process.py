"""One live MCP server: started through the driver, negotiated with, checked against its pinned tools, called, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation, TextContent

from services.sandbox.drivers.driver import Driver, Process, SandboxSpec
from services.sandbox.errors import CallTimedOut, SandboxError, ServerDied, ServerMisbehaved, ToolsDiffer
from services.sandbox.toolsets import Toolset, differing_tools
from services.sandbox.transport import UNREADABLE_ANSWER, BoundedStdio
from services.shared.contracts.tools import JsonObject, Tool, tools_digest

MAX_TOOLS = 256
# How long a dead server's exit status may take to arrive, before the message does without it.
EXIT_STATUS_S = 0.5

CLIENT = Implementation(name="agentflux-sandbox", version="0.1.0")


class McpServer:
    """One server in its sandbox. `start` returns at once, `ready` waits for it, and any number of calls may share it."""

    def __init__(self, toolset: Toolset, *, driver: Driver, workspace: Path, verify: bool = True) -> None:
        self.toolset = toolset
        self.tools: list[Tool] = []
        self._driver = driver
        self._workspace = workspace
        self._verify = verify
        self._process: Process | None = None
        self._transport: BoundedStdio | None = None
        self._client: Client | None = None
        self._failure: SandboxError | None = None
        self._settled = asyncio.Event()
        self._over = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self, *, on_end: Callable[[], None] = lambda: None) -> None:
        """Starts the server in the background; `on_end` is called once, when nothing of it is left."""
        # The SDK's session has to be left by the task that entered it, so one task keeps it from beginning to end.
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(lambda _: on_end())

    async def ready(self) -> None:
        """Waits until the server can be called.

        Raises:
            SandboxError: why it cannot: it died, hung, misbehaved, or lists other tools than are pinned.
        """
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def pid(self) -> int | None:
        """Of its sandbox, on the host."""
        return self._process.pid if self._process else None

    @property
    def is_sound(self) -> bool:
        """False once it ended or was ended: no further call can reach it."""
        return not self._over.is_set()

    async def call(self, tool: str, arguments: JsonObject) -> CallToolResult:
        """What the tool answers. A JSON-RPC error becomes a result with `is_error`, for it is the server's own refusal.

        Raises:
            ServerDied, ServerMisbehaved, OutputTooLarge: there is no answer and will be none.
        """
        assert self._client is not None, "call() before ready()"
        try:
            return await self._client.call_tool(tool, arguments)
        except MCPError as error:
            if error.code in (CONNECTION_CLOSED, UNREADABLE_ANSWER):
                raise await self._explained(error, f"during a call of {tool!r}") from None
            return CallToolResult(content=[TextContent(type="text", text=f"{error.message} ({error.code})")], is_error=True)
        except Exception as error:
            raise await self._explained(error, f"during a call of {tool!r}") from None

    def kill(self) -> None:
        """Ends the server and its whole process tree now, at whatever point it is."""
        self._over.set()
        if self._process is not None:
            self._process.kill()

    async def gone(self) -> None:
        """Waits until nothing of the server is left."""
        if self._keeper is not None:
            await asyncio.wait({self._keeper})

    async def _keep(self) -> None:
        try:
            await self._live()
        except SandboxError as error:
            self._failure = error
        except TimeoutError:
            self._failure = CallTimedOut(
                f"the server of toolset {self.toolset.name!r} was not ready within {self.toolset.limits.start_s:g} s and was "
                f"killed{self._last_words()}; raise start_s in toolset.yaml if it needs longer"
            )
        except Exception as error:
            self._failure = await self._explained(error, "while it started")
        finally:
            self.kill()
            self._settled.set()

    async def _live(self) -> None:
        limits = self.toolset.limits
        spec = SandboxSpec(
            command=self.toolset.command,
            workspace=self._workspace,
            limits=limits,
            toolset=self.toolset.directory,
            environment=self.toolset.environment,
        )
        async with asyncio.timeout(limits.start_s) as starting:
            self._process = await self._driver.start(spec)
            self._transport = BoundedStdio(self._process, frame_bytes=limits.frame_bytes, over=self._over)
            if self._over.is_set():
                self._process.kill()
            async with Client(self._transport.connect(), mode="auto", cache=None, client_info=CLIENT) as client:
                await self._greet(client)
                starting.reschedule(None)
                if self._failure is None:
                    self._client = client
                    self._settled.set()
                    await self._over.wait()

    async def _greet(self, client: Client) -> None:
        # An error raised inside the SDK's session would come out in a group of its tasks; kept here it stays itself.
        try:
            self.tools = await _list_tools(client)
            self._failure = self._drift() if self._verify else None
        except (MCPError, ValueError) as error:
            self._failure = await self._explained(error, "while it listed its tools")

    def _drift(self) -> ToolsDiffer | None:
        if tools_digest(self.tools) == self.toolset.digest:
            return None
        names = ", ".join(differing_tools(self.toolset.tools, self.tools))
        return ToolsDiffer(
            f"the server of toolset {self.toolset.name!r} lists other tools than its tools.json pins (different: {names}): "
            f"review the change, then pin it with: python -m services.sandbox.pin {self.toolset.name}"
        )

    async def _explained(self, error: Exception, when: str) -> SandboxError:
        """Our error for what the SDK raised: who broke off, and what the server said last."""
        who = f"the server of toolset {self.toolset.name!r}"
        violation = self._transport.violation if self._transport else None
        if violation is not None:
            return type(violation)(f"{who} was killed {when}: {violation.message}")
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if self._over.is_set() or (isinstance(error, MCPError) and error.code == CONNECTION_CLOSED):
            return ServerDied(
                f"{who} ended {when} ({await self._exit_status()}){self._last_words()}; a new call starts a new server"
            )
        said = str(error)[:500] or type(error).__name__
        return ServerMisbehaved(f"{who} broke the protocol {when}: {said}{self._last_words()}")

    async def _exit_status(self) -> str:
        status: int | None = None
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(EXIT_STATUS_S):
                    status = await self._process.wait()
        if status is None:
            return "no exit status"
        return f"signal {status - 128}" if status > 128 else f"signal {-status}" if status < 0 else f"exit status {status}"

    def _last_words(self) -> str:
        words = self._transport.last_words if self._transport else ""
        return f"; it last wrote to stderr: {words!r}" if words else ""


async def _list_tools(client: Client) -> list[Tool]:
    """All pages of tools/list; a server with more than `MAX_TOOLS`, or whose pages never end, is refused."""
    tools: list[Tool] = []
    cursor = None
    for _ in range(MAX_TOOLS):
        page = await client.list_tools(cursor=cursor)
        tools += [Tool(name=tool.name, description=tool.description or "", parameters=tool.input_schema) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None or len(tools) > MAX_TOOLS:
            break
    if cursor is not None or len(tools) > MAX_TOOLS:
        raise ValueError(f"it lists more than {MAX_TOOLS} tools, or its list never ends")
    return tools
