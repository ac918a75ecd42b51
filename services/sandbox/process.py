"""One live MCP server: started through the driver, negotiated with, checked against its pinned tools, called, ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation, TextContent, ToolListChangedNotification
from mcp_types import Tool as ListedTool

from services.sandbox.drivers.driver import Driver, Process
from services.sandbox.drivers.remote import BoundedHttp
from services.sandbox.errors import CallTimedOut, SandboxError, ServerDied, ServerMisbehaved
from services.sandbox.pinning import PinnedTool
from services.sandbox.progress import Progress
from services.sandbox.toolsets import Toolset
from services.sandbox.transport import UNREADABLE_ANSWER, BoundedStdio
from services.shared.contracts.tools import JsonObject, Tool

MAX_TOOLS = 256
# How old a listing may be when a call is forwarded. Asking before each call would cost each of them a round trip; this way calls
# that come closely one after another share one, and for so long a change without a word can go unseen.
LISTING_AGE_S = 1.0
# How long a dead server's exit status may take to arrive, before the message does without it.
EXIT_STATUS_S = 0.5

CLIENT = Implementation(name="agentflux-sandbox", version="0.1.0")


class McpServer:
    """One server in its sandbox. `start` returns at once, `ready` waits for it, and any number of calls may share it."""

    def __init__(
        self,
        toolset: Toolset,
        *,
        driver: Driver,
        workspace: Path,
        verify: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.toolset = toolset
        self.listed: list[PinnedTool] = []
        self._driver = driver
        self._workspace = workspace
        self._verify = verify
        self._clock = clock
        self._process: Process | None = None
        self._transport: BoundedStdio | BoundedHttp | None = None
        self._client: Client | None = None
        self._failure: SandboxError | None = None
        self._settled = asyncio.Event()
        self._unwanted = False
        # Times of the clock: when the last good listing was asked for, and when the server last said that it changed.
        self._listed_at = self._changed_at = -math.inf
        self._listing = asyncio.Lock()
        self._over = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._on_settled: Callable[[SandboxError | None], None] = lambda _: None

    def start(
        self,
        *,
        on_end: Callable[[], None] = lambda: None,
        on_settled: Callable[[SandboxError | None], None] = lambda _: None,
    ) -> None:
        """Starts the server in the background.

        `on_settled` is called once it is ready, or with why it will not be, unless it was killed before that; `on_end` is
        called once, when nothing of it is left.
        """
        self._on_settled = on_settled
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
    def is_ready(self) -> bool:
        """True once it could be called, and ever after."""
        return self._client is not None

    @property
    def pid(self) -> int | None:
        """Of its sandbox, on the host."""
        return self._process.pid if self._process else None

    @property
    def is_sound(self) -> bool:
        """False once it ended or was ended: no further call can reach it."""
        return not self._over.is_set()

    async def call(
        self,
        tool: str,
        arguments: JsonObject,
        *,
        on_progress: Progress | None = None,
    ) -> CallToolResult:
        """What the tool answers. A JSON-RPC error becomes a result with `is_error`, for it is the server's own refusal.

        Raises:
            ServerDied, ServerMisbehaved, OutputTooLarge: there is no answer and will be none.
            ToolsDiffer: its list is not what is pinned any more: the tool was not called, or failed, perhaps because of that.
        """
        assert self._client is not None, "call() before ready()"
        # Elsewhere a server may be another one any minute.
        await self._require_pinned(self._client, max_age_s=0 if self.toolset.url else LISTING_AGE_S)
        said = await self._called(self._client, tool, arguments, on_progress)
        if said.is_error:
            # Its tool may be gone. A server that goes with its last word has said it, though.
            with suppress(ServerDied):
                await self._require_pinned(self._client, max_age_s=0)
        return said

    def kill(self) -> None:
        """Ends the server and its whole process tree now, at whatever point it is."""
        self._unwanted = True
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
            self._settle()
            self.kill()

    async def _live(self) -> None:
        async with asyncio.timeout(self.toolset.limits.start_s) as starting:
            self._transport = await self._reach()
            async with Client(
                self._transport.connect(),
                mode="legacy" if self.toolset.legacy else "auto",
                cache=None,
                client_info=CLIENT,
                message_handler=self._notice,
            ) as client:
                await self._greet(client)
                starting.reschedule(None)
                if self._failure is None:
                    self._client = client
                    self._settle()
                    await self._over.wait()

    async def _reach(self) -> BoundedStdio | BoundedHttp:
        """The way to the server: a process that is started here, or the URL where it runs."""
        frame_bytes = self.toolset.limits.frame_bytes
        if url := self.toolset.url:
            return BoundedHttp(url, headers=self.toolset.secret_headers(), frame_bytes=frame_bytes, over=self._over)
        self._process = await self._driver.start(self.toolset.spec(self._workspace))
        if self._over.is_set():
            self._process.kill()
        return BoundedStdio(self._process, frame_bytes=frame_bytes, over=self._over)

    def _settle(self) -> None:
        if not self._settled.is_set():
            self._settled.set()
            if not self._unwanted:
                self._on_settled(self._failure)

    async def _greet(self, client: Client) -> None:
        # An error raised inside the SDK's session would come out in a group of its tasks; kept here it stays itself.
        try:
            # The SDK would check results against whatever schema the server lists, with patterns of unbounded cost in our event
            # loop; the runner checks them against the pinned one.
            client.session.validate_tool_result = _not_checked_here  # type: ignore[method-assign]
            asked_at = self._clock()
            self.listed = await _list_tools(client)
            self._failure = self.toolset.drift(self.listed) if self._verify else None
            self._listed_at = asked_at
        except (MCPError, ValueError) as error:
            self._failure = await self._explained(error, "while it listed its tools")

    async def _called(self, client: Client, tool: str, arguments: JsonObject, on_progress: Progress | None) -> CallToolResult:
        when = f"during a call of {tool!r}"
        try:
            said = await client.call_tool(tool, arguments, progress_callback=on_progress)
            if said.result_type not in (None, "complete"):
                raise ValueError(f"its result is of the unknown type {said.result_type!r:.80}")
            return said
        except MCPError as error:
            if error.code in (CONNECTION_CLOSED, UNREADABLE_ANSWER) or self._violation():
                raise await self._explained(error, when) from None
            return CallToolResult(content=[TextContent(type="text", text=f"{error.message} ({error.code})")], is_error=True)
        except Exception as error:
            raise await self._explained(error, when) from None

    async def _notice(self, message: object) -> None:
        """What the server says unasked: nothing of it is believed, but a list that changed is looked at before the next call."""
        if isinstance(message, ToolListChangedNotification):
            self._changed_at = self._clock()

    async def _require_pinned(self, client: Client, *, max_age_s: float) -> None:
        """Lists the tools again, unless that was done within `max_age_s` seconds and no change was announced since.

        Raises:
            ToolsDiffer: the list is not what is pinned any more.
            ServerDied, ServerMisbehaved, OutputTooLarge: it cannot be read any more.
        """
        if not self._verify:
            return
        oldest = self._clock() - max_age_s
        # Calls that come meanwhile wait here, and one listing serves all of them.
        async with self._listing:
            if self._listed_at > max(oldest, self._changed_at):
                return
            asked_at = self._clock()
            try:
                live = await _list_tools(client)
            except Exception as error:
                raise await self._explained(error, "while it listed its tools again") from None
            if drift := self.toolset.drift(live):
                raise drift
            self._listed_at = asked_at

    async def _explained(self, error: Exception, when: str) -> SandboxError:
        """Our error for what the SDK raised: who broke off, and what the server said last."""
        who = f"the server of toolset {self.toolset.name!r}"
        if violation := self._violation():
            ended = "was killed" if self._process else "was given up"
            return type(violation)(f"{who} {ended} {when}: {self.toolset.scrubbed(violation.message)}")
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        closed = isinstance(error, MCPError) and error.code == CONNECTION_CLOSED
        # At start this is what the SDK says of a protocol version that it does not know; then it is we who ended the server.
        refused = self._client is None and isinstance(error, RuntimeError)
        if closed or (self._over.is_set() and not refused):
            how = await self._exit_status() if self._process else "its connection broke off"
            words = self._last_words()
            # Python servers of early 2025 die of any request that they do not know, and later ones only complain.
            is_too_old = self._client is None and "server/discover" in words
            advice = "write `legacy: true` into its toolset.yaml" if is_too_old else "a new call starts a new server"
            return ServerDied(f"{who} ended {when} ({how}){words}; {advice}")
        said = " ".join(self.toolset.scrubbed(str(error)).split())[:500] or type(error).__name__
        return ServerMisbehaved(f"{who} broke the protocol {when}: {said}{self._last_words()}")

    def _violation(self) -> SandboxError | None:
        return self._transport.violation if self._transport else None

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
        words = self.toolset.scrubbed(self._transport.last_words) if self._transport else ""
        return f"; it last wrote to stderr: {words!r}" if words else ""


async def _not_checked_here(name: str, result: CallToolResult) -> None:
    """In place of the SDK's own check of a structured result."""


async def _list_tools(client: Client) -> list[PinnedTool]:
    """All pages of tools/list; a server with more than `MAX_TOOLS`, or whose pages never end, is refused."""
    tools: list[PinnedTool] = []
    cursor = None
    for _ in range(MAX_TOOLS):
        page = await client.list_tools(cursor=cursor)
        tools += [_pinned(tool) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None or len(tools) > MAX_TOOLS:
            break
    if cursor is not None or len(tools) > MAX_TOOLS:
        raise ValueError(f"it lists more than {MAX_TOOLS} tools, or its list never ends")
    names = [tool.tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"it lists {', '.join(twice)[:300]} more than once")
    return tools


def _pinned(listed: ListedTool) -> PinnedTool:
    return PinnedTool(
        Tool(name=listed.name, description=listed.description or "", parameters=listed.input_schema),
        listed.title,
        listed.output_schema,
        listed.annotations.model_dump(mode="json", by_alias=True, exclude_unset=True) if listed.annotations else None,
    )
