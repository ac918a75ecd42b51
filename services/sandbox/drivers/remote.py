"""The wire between the MCP SDK and a server at a URL that may be hostile: every body and event bounded, strict JSON, no redirect.

The SDK speaks streamable HTTP in both eras. It reads a JSON body without end, lets NaN through, and follows redirects within
one origin; here the server breaks a rule instead, as one on a pipe does in `transport.py`. Deadlines are the pool's: what it
ends is closed here within `CLOSE_S`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
import httpx2
import orjson
from anyio.streams.memory import MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCResponse

from services.sandbox.errors import OutputTooLarge, SandboxError, ServerDied, ServerMisbehaved, ToolsetNotReady
from services.sandbox.frames import strict_json
from services.sandbox.transport import UNASKED_BUDGET, UNREADABLE_ANSWER
from services.shared.contracts.tools import canonical_json

# Time for a connection to be made, and for the farewell of a server of the older era.
CONNECT_S = 10.0
CLOSE_S = 1.0
# A server may end a stream and have it opened again, at once and for ever; the SDK would.
MAX_STREAMS = 16
# A stream of events may be as large as this many JSON bodies: besides the answer there are progress and logs.
_BODIES_PER_STREAM = 4

_ToSession = MemoryObjectSendStream[SessionMessage | Exception]
Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]


class BoundedHttp:
    """Talks to one server. `violation` is the rule that it broke, once it did; `over` is set with it.

    `frame_bytes` bounds a JSON body; `headers` go with each request and may hold a credential.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str], frame_bytes: int, over: asyncio.Event) -> None:
        self._url = url
        self._headers = dict(headers)
        self._frame_bytes = frame_bytes
        self._over = over
        self._unasked = 0
        self._streams = 0
        self.violation: SandboxError | None = None

    @property
    def last_words(self) -> str:
        """None: nobody sees a remote server's log."""
        return ""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Streams, None]:
        """The SDK's pair of streams; they end when `over` is set. When this ends, no connection is left."""
        client = httpx2.AsyncClient(
            transport=_BoundedTransport(self, self._frame_bytes),
            headers={**self._headers, "accept-encoding": "identity"},
            # An answer may take as long as the call may; who waits for it has a clock.
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            # A proxy of the environment would decide where the operator's URL leads.
            trust_env=False,
        )
        to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        async with (
            client,
            # The body is bounded, and with it its events.
            streamable_http_client(self._url, http_client=client, max_sse_event_size=None) as (reader, writer),
        ):
            reading = asyncio.create_task(self._read(reader, to_session))
            ending = asyncio.create_task(self._end(reading))
            try:
                yield from_server, writer
            finally:
                ending.cancel()
                reading.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([ending, reading])
                from_server.close()

    async def _read(self, server: ReadStream[SessionMessage | Exception], session: _ToSession) -> None:
        # Whoever closes first: the other has nothing more to say.
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with session:
                async for item in server:
                    self._unasked += 1
                    if self._unasked > UNASKED_BUDGET:
                        self.broke(ServerMisbehaved(f"the server sent {UNASKED_BUDGET} messages that nobody asked for"))
                    await session.send(_checked(item))

    async def _end(self, reading: asyncio.Task[None]) -> None:
        await self._over.wait()
        reading.cancel()

    def may_ask(self, request: httpx2.Request) -> bool:
        """Counts a request of ours; false for a stream that was opened again too often since the last message we sent."""
        if request.method == "POST":
            self._unasked = self._streams = 0
        else:
            self._streams += 1
        return self._streams <= MAX_STREAMS

    def broke(self, violation: SandboxError) -> None:
        """Ends the connection, for `violation`."""
        if self.violation is None:
            self.violation = violation
        self._over.set()


def _checked(item: SessionMessage | Exception) -> SessionMessage | Exception:
    """The message, or an error in its place that answers its call: where it is no strict JSON."""
    if isinstance(item, SessionMessage):
        match item.message:
            case JSONRPCResponse(id=request_id, result=result):
                try:
                    strict_json(canonical_json(result).encode())
                except (ValueError, RecursionError) as error:
                    return _unreadable(request_id, str(error))
            case JSONRPCError(id=request_id, error=ErrorData(code=code, message=said)) if code == PARSE_ERROR:
                return _unreadable(request_id, said)
    return item


def _unreadable(request_id: str | int | None, why: str) -> SessionMessage:
    error = ErrorData(code=UNREADABLE_ANSWER, message=f"the server's answer cannot be read: {why[:300]}")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request_id, error=error))


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """Looks at each response before the SDK does."""

    def __init__(self, owner: BoundedHttp, frame_bytes: int) -> None:
        self._owner = owner
        self._frame_bytes = frame_bytes
        self._wire = httpx2.AsyncHTTPTransport(verify=ssl.create_default_context(), trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            return await self._farewell(request)
        if not self._owner.may_ask(request):
            return httpx2.Response(405, request=request)
        try:
            response = await self._wire.handle_async_request(request)
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            return self._broken(request, ServerDied(f"{_place(request)} cannot be reached: {why}"))
        if violation := _objection(request, response):
            await response.aclose()
            return self._broken(request, violation)
        is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        most = self._frame_bytes * (_BODIES_PER_STREAM if is_stream else 1)
        response.headers.pop("set-cookie", None)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_BoundedBody(response, request, self._owner, most),
            request=request,
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._wire.aclose()

    def _broken(self, request: httpx2.Request, violation: SandboxError) -> httpx2.Response:
        # An exception would end the SDK's session with a trace in the log; to this answer it gives an error of its own.
        self._owner.broke(violation)
        return httpx2.Response(502, request=request)

    async def _farewell(self, request: httpx2.Request) -> httpx2.Response:
        # The server may hang here too, and nobody waits for what it says.
        try:
            async with asyncio.timeout(CLOSE_S):
                response = await self._wire.handle_async_request(request)
                await response.aclose()
        except (TimeoutError, httpx2.TransportError):
            pass
        return httpx2.Response(204, request=request)


class _BoundedBody(httpx2.AsyncByteStream):
    """A response's body, of at most `most` bytes."""

    def __init__(self, response: httpx2.Response, request: httpx2.Request, owner: BoundedHttp, most: int) -> None:
        self._response = response
        self._request = request
        self._owner = owner
        self._left = most
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_raw():
                self._left -= len(chunk)
                if self._left < 0:
                    too_large = OutputTooLarge(
                        f"a response is larger than {self._most} bytes, which is the most that is read for the toolset's "
                        "output_bytes: ask the tool for less, or raise output_bytes in toolset.yaml"
                    )
                    raise self._broken(too_large)
                yield chunk
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise self._broken(ServerDied(f"{_place(self._request)} broke off its response: {why}")) from None

    def _broken(self, violation: SandboxError) -> httpx2.StreamError:
        self._owner.broke(violation)
        # The kind that the SDK expects while it reads.
        return httpx2.StreamError(violation.message)

    async def aclose(self) -> None:
        await self._response.aclose()


def _objection(request: httpx2.Request, response: httpx2.Response) -> SandboxError | None:
    """Why this response is not read; None leaves it to the SDK."""
    status, where = response.status_code, _place(request)
    if 300 <= status < 400:
        target = response.headers.get("location", "nowhere")[:200]
        return ServerMisbehaved(
            f"{where} redirects to {target!r}, which is not followed: put the right address into toolset.yaml"
        )
    if status in (401, 403):
        return ToolsetNotReady(f"{where} answered HTTP {status}: give it a valid credential in the toolset's secret file")
    if response.headers.get("content-encoding", "identity") != "identity":
        return ServerMisbehaved(f"{where} sent a compressed body, which was not asked for")
    if status == 404 and "mcp-session-id" in request.headers:
        return ServerDied(f"{where} has ended its session")
    kind = response.headers.get("content-type", "").lower()
    is_json = kind.startswith("application/json")
    if status < 300 and (status == 202 or not is_json) and not kind.startswith("text/event-stream") and _asks(request):
        return ServerMisbehaved(f"{where} answered HTTP {status} with {kind[:80] or 'no content'}, which is no answer")
    # A server of the older era may answer the newer era's first question with any error, and need not offer a stream to GET.
    if status >= 400 and not is_json and request.method == "POST" and request.headers.get("mcp-method") != "server/discover":
        return ServerDied(f"{where} answered HTTP {status}")
    return None


def _place(request: httpx2.Request) -> str:
    # Without user, password and query, which may be credentials.
    return str(request.url.copy_with(userinfo=None, query=None, fragment=None))


def _asks(request: httpx2.Request) -> bool:
    """Whether it carries a request, which wants an answer: no notification, and no answer of ours."""
    return request.method == "POST" and {"id", "method"} <= orjson.loads(request.content).keys()
