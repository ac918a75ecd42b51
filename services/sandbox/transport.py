"""The pipe between the MCP SDK and a server that may be hostile: every message bounded, strict JSON, nothing hangs silently.

The SDK keeps sessions and types. Its own stdio transport has no limit on a line, lets NaN through, and drops an answer it
cannot parse, so that the call hangs; here such an answer fails its call at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter
from pydantic import ValidationError

from services.sandbox.drivers.driver import Process
from services.sandbox.errors import OutputTooLarge, SandboxError, ServerMisbehaved
from services.sandbox.frames import BadFrame, FrameTooLong, LineBuffer, parse_frame
from services.sandbox.limits import MIB

# Some servers print a banner or a stray line; a stream of them is something else.
BAD_FRAME_BUDGET = 16
# Messages since our last request that answer none, and their bytes: room for a very talkative progress report, none for a
# server that never stops.
UNASKED_BUDGET = 5000
UNASKED_BYTES = 4 * MIB
# The code of an answer that we could not read, in the range that JSON-RPC leaves to implementations.
UNREADABLE_ANSWER = -32050

_CHUNK = 64 * 1024
_STDERR_BYTES = 4096
_REAP_S = 2.0


class ToServer:
    """The stream that the SDK's session writes to. It hands each message on at once: a task between them would cost every call a
    quarter of a millisecond."""

    def __init__(self, write: Callable[[SessionMessage], None]) -> None:
        self._write = write

    async def send(self, message: SessionMessage) -> None:
        """Never waits for a server that does not read; calls in flight bound what it has not read."""
        self._write(message)

    async def aclose(self) -> None:
        """The pipe is closed when the server is ended."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], ToServer]


class BoundedStdio:
    """Talks to one process. `violation` is the rule that its server broke, once it did; `over` is set after its last byte."""

    def __init__(self, process: Process, *, frame_bytes: int, over: asyncio.Event) -> None:
        self._process = process
        self._over = over
        self._frame_bytes = frame_bytes
        self._stderr = b""
        self._bad_frames = 0
        self._unasked = 0
        self._unasked_bytes = 0
        self._awaited: set[int | str] = set()
        self.violation: SandboxError | None = None

    @property
    def last_words(self) -> str:
        """The end of what the server wrote to stderr, without control characters."""
        text = self._stderr.decode("utf-8", "replace").strip()
        return "".join(char if char.isprintable() else " " for char in text)[-600:]

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Streams, None]:
        """The SDK's pair of streams. When this ends, the process tree is dead and its pipes are empty."""
        to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        reading, draining = asyncio.create_task(self._read(to_session)), asyncio.create_task(self._drain_stderr())
        try:
            yield from_server, ToServer(self._write)
        finally:
            self._process.kill()
            with anyio.CancelScope(shield=True):
                reading.cancel()
                await asyncio.wait((reading, draining), timeout=_REAP_S)
                await self._reap()
            for stream in (to_session, from_server):
                stream.close()

    async def _read(self, session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        lines = LineBuffer(self._frame_bytes)
        # The session may close first; then nobody waits for these messages any more.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            try:
                while self.violation is None and (chunk := await self._process.stdout.read(_CHUNK)):
                    for line in lines.feed(chunk):
                        if (message := self._message(line)) is not None:
                            await session.send(message)
                        self._count(message, len(line))
                        if self.violation is not None:
                            break
            except FrameTooLong as error:
                self.violation = OutputTooLarge(
                    f"{error}, which is the most that is read for the toolset's output_bytes: ask the tool for less, "
                    "or raise output_bytes in toolset.yaml"
                )
            finally:
                self._over.set()
                session.close()
                if self.violation is not None:
                    self._process.kill()

    def _count(self, message: SessionMessage | None, size: int) -> None:
        said = message and message.message
        if isinstance(said, JSONRPCResponse | JSONRPCError) and said.id in self._awaited:
            self._awaited.discard(said.id)
            return
        self._unasked += 1
        self._unasked_bytes += size
        if self._unasked > UNASKED_BUDGET or self._unasked_bytes > UNASKED_BYTES:
            self.violation = ServerMisbehaved(
                f"the server sent more than {UNASKED_BUDGET} messages that nobody asked for, or {UNASKED_BYTES} bytes of them"
            )

    def _message(self, line: bytes) -> SessionMessage | None:
        try:
            value = parse_frame(line)
            try:
                return SessionMessage(jsonrpc_message_adapter.validate_python(value, by_name=False))
            except ValidationError:
                raise BadFrame("not a JSON-RPC message", _id_of(value)) from None
        except BadFrame as bad:
            self._bad_frames += 1
            if bad.request_id is not None:
                error = ErrorData(code=UNREADABLE_ANSWER, message=f"the server's answer cannot be read: {bad}")
                return SessionMessage(JSONRPCError(jsonrpc="2.0", id=bad.request_id, error=error))
            if self._bad_frames > BAD_FRAME_BUDGET:
                self.violation = ServerMisbehaved(
                    f"the server wrote {self._bad_frames} lines to stdout that are no messages (the last: {bad}); "
                    "an MCP server has to log to stderr"
                )
            return None

    def _write(self, message: SessionMessage) -> None:
        # Our answers to what the server asks do not make it any less unasked.
        if isinstance(message.message, JSONRPCRequest):
            self._unasked = self._unasked_bytes = 0
            self._awaited.add(message.message.id)
        text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
        # A pipe that breaks is the server's end, and the reader sees that, too.
        with suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(text.encode() + b"\n")

    async def _drain_stderr(self) -> None:
        while chunk := await self._process.stderr.read(_CHUNK):
            self._stderr = (self._stderr + chunk)[-_STDERR_BYTES:]

    async def _reap(self) -> None:
        # asyncio reports an exit only after the pipes ended, so what is left in them has to be read.
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAP_S):
                self._process.stdin.close()
                while await self._process.stdout.read(_CHUNK):
                    pass
                await self._process.wait()
                # A write that met a closed pipe left its error here, and some Python versions log what nobody fetched.
                with suppress(ConnectionError):
                    await self._process.stdin.wait_closed()


def _id_of(value: dict[str, Any]) -> int | None:
    found = value.get("id")
    return found if isinstance(found, int) and not isinstance(found, bool) and "method" not in value else None
