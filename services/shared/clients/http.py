"""The one place where our services make HTTP requests: pooled, with deadlines, trace headers, and errors of ours."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import orjson
import structlog
from opentelemetry import propagate
from pydantic import BaseModel, ValidationError

from services.shared.clients.breaker import Breaker
from services.shared.clients.transport import AiohttpTransport, HttpxTransport, Reply, Transport
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded, Unavailable, UpstreamError, error_from

Answer = TypeVar("Answer", bound=BaseModel)

# A streamed line holds one chunk of a reply; no engine's is near this, and memory is not a stranger's to fill.
MAX_LINE_BYTES = 1024 * 1024


class HttpClient:
    """JSON requests to one service.

    `base_url` is `http://host:port`, or `unix:/path` for a service on a unix socket. Cancelling a call closes its
    connection, which is how the other side learns of it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        service: str,
        timeout_s: float,
        connect_timeout_s: float = 5.0,
        unavailable: type[Unavailable] = Unavailable,
        breaker: Breaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.service = service
        self.base_url = base_url
        self._breaker = breaker
        self._unavailable = unavailable
        # Connecting is local and quick or does not happen; the deadline is for the answer.
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, connect_timeout_s))
        self._transport: Transport = (
            HttpxTransport(transport, base_url.rstrip("/"), timeout) if transport else AiohttpTransport(base_url, timeout)
        )

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._transport.aclose()

    async def get(self, path: str) -> Any:
        """The JSON body of a GET."""
        async with self._exchange("GET", path) as response:
            return self._parse(response, await response.aread())

    async def post(self, path: str, body: Any) -> Any:
        """The JSON body of the reply to a POST of `body` as JSON."""
        async with self._exchange("POST", path, _encode(body)) as response:
            return self._parse(response, await response.aread())

    async def ask(self, path: str, request: BaseModel, answer: type[Answer]) -> Answer:
        """POSTs one contract model and gets another one. Contracts can be asked twice, so a lost connection may be retried."""
        content = request.model_dump(exclude_none=True)
        body = await self._guarded(lambda: self.post(path, content))
        try:
            return answer.model_validate(body)
        except ValidationError as error:
            raise UpstreamError(
                f"{self.service} answered {path} with something that is no {answer.__name__}: {body!r:.300}"
            ) from error

    async def obstacle(self, path: str = "/livez") -> str | None:
        """None when a GET of `path` succeeds, else one sentence that says why not."""
        try:
            await self.get(path)
        except AgentFluxError as error:
            return error.message
        return None

    async def delete(self, path: str) -> None:
        """A DELETE whose reply has no body."""

        async def send() -> None:
            async with self._exchange("DELETE", path) as response:
                # Read to its end, empty as it is: otherwise the connection is closed instead of kept.
                await response.aread()

        await self._guarded(send)

    async def stream_lines(self, path: str, body: Any) -> AsyncGenerator[str]:
        """The lines of the reply to a POST, as they arrive."""
        lines = _Lines()
        async with self._exchange("POST", path, _encode(body)) as response:
            async for part in response.aiter_bytes():
                for line in lines.of(part):
                    yield line
            for line in lines.last():
                yield line

    async def stream_data(self, path: str, body: Any) -> AsyncGenerator[str]:
        """What the server-sent events of the reply to a POST hold, up to OpenAI's `[DONE]`.

        Raises:
            Unavailable: the stream ended before that.
        """
        lines = _Lines()
        async with self._exchange("POST", path, _encode(body)) as response:
            async for part in response.aiter_bytes():
                for line in lines.of(part):
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        return
                    yield data
        raise self._unavailable(f"the stream of {self.service} ended early; it was restarted or killed")

    async def _guarded(self, send: Callable[[], Awaitable[Any]]) -> Any:
        """`send`, unless the breaker is open; and once more where a connection was refused or lost, within the budget. Never
        after a timeout: the time is used up, and a service that is slow does not get faster by being asked twice."""
        if self._breaker is None:
            return await send()
        self._breaker.deposit()
        try:
            return await self._reported(send, self._breaker)
        except Unavailable as error:
            was_lost = isinstance(error.__cause__, httpx.NetworkError | httpx.RemoteProtocolError)
            if not was_lost or not self._breaker.may_retry():
                raise
        return await self._reported(send, self._breaker)

    async def _reported(self, send: Callable[[], Awaitable[Any]], breaker: Breaker) -> Any:
        if (rests_s := breaker.rests_s()) is not None:
            raise self._unavailable(
                f"{self.service} at {self.base_url} failed again and again; it is asked again in {rests_s:.1f} s",
                retry_after=rests_s,
            )
        try:
            reply = await send()
        except AgentFluxError as error:
            # A refusal (4xx) shows that it works.
            (breaker.failed if error.status >= 500 else breaker.succeeded)()
            raise
        except BaseException:
            breaker.let_go()
            raise
        breaker.succeeded()
        return reply

    @asynccontextmanager
    async def _exchange(self, method: str, path: str, content: bytes = b"") -> AsyncIterator[Reply]:
        headers = {"content-type": "application/json"}
        propagate.inject(headers)
        if request_id := structlog.contextvars.get_contextvars().get("request_id"):
            headers["x-request-id"] = request_id
        try:
            response = await self._transport.send(method, path, headers, content)
            try:
                if response.status_code >= 400:
                    raise self._error(response.status_code, await response.aread())
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
                raise self._unavailable(
                    f"{self.service} at {self.base_url} does not accept connections, or its name cannot be looked up in time"
                ) from error
            raise DeadlineExceeded(f"{self.service} did not answer {path} in time") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise self._unavailable(f"{self.service} at {self.base_url} cannot be reached or went away: {reason}") from error
        except httpx.DecodingError as error:
            raise UpstreamError(f"{self.service} answered {path} with a body that cannot be decompressed: {error}") from error

    def _error(self, status: int, content: bytes) -> AgentFluxError:
        try:
            body: object = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = content.decode("utf-8", "replace")
        error = body.get("error") if isinstance(body, dict) else None
        # Our own codes are words; vLLM's is the status again, a number.
        if status == 503 and not (isinstance(error, dict) and isinstance(error.get("code"), str)):
            return self._unavailable(f"{self.service} says it cannot serve now: {body!r:.300}")
        return error_from(status, body, service=self.service)

    def _parse(self, response: Reply, content: bytes) -> Any:
        if response.status_code == 204:
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise UpstreamError(f"{self.service} answered {response.status_code} with a body that is not JSON") from error


def _encode(body: Any) -> bytes:
    """JSON. What orjson cannot write but clients send (half a surrogate pair, an integer beyond 64 bits) goes on as it came."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body).encode()


class _Lines:
    """Cuts what comes in parts into lines. They end at a line feed and nowhere else: httpx would also break them at U+2028 and
    others, which JSON text may hold."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def of(self, part: bytes) -> list[str]:
        """The lines that `part` completes."""
        *lines, last = part.split(b"\n")
        if self._rest and lines:
            lines[0] = bytes(self._rest + lines[0])
            self._rest.clear()
        if last:
            self._rest += last
            if len(self._rest) > MAX_LINE_BYTES:
                raise UpstreamError(f"a line of the reply is longer than {MAX_LINE_BYTES} bytes")
        return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]

    def last(self) -> list[str]:
        """The line at the end of everything, where no line feed is."""
        return [self._rest.decode("utf-8", "replace")] if self._rest else []
