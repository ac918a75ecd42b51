"""How requests between services travel: over aiohttp's connections, or by a transport of httpx. Errors are httpx's.

aiohttp parses in C; with none of httpx's requests and responses built around it, a request costs a sixth of what httpx needs.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import aiohttp
import httpx
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

# Idle connections are let go before a server does it (vLLM after 5 s), so that no request meets a closing one.
KEEP_ALIVE_S = 3.0

MOST_PATHS = 64

# The first that fits counts, so the special ones come first.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientError, httpx.NetworkError),
    # Names and ports that cannot be.
    (ValueError, httpx.UnsupportedProtocol),
)


class Reply(Protocol):
    """A reply whose body is read as it arrives; an httpx.Response is one. Closing it before its end closes its connection."""

    @property
    def status_code(self) -> int: ...

    async def aread(self) -> bytes: ...

    def aiter_bytes(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Sends requests, and raises what httpx would. `path` and `headers` are ours: nothing in them is escaped."""

    async def send(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Reply:
        """The reply, of which only the head is there."""

    async def aclose(self) -> None:
        """Closes all connections."""


class HttpxTransport:
    """By a transport of httpx, which somebody has handed in."""

    def __init__(self, inner: httpx.AsyncBaseTransport, base_url: str, timeout: httpx.Timeout) -> None:
        self._inner = inner
        self._base_url = base_url
        self._extensions = {"timeout": timeout.as_dict()}

    async def send(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Reply:
        url = self._base_url + path
        request = httpx.Request(method, url, headers=headers, content=content or None, extensions=self._extensions)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class AiohttpTransport:
    """Over connections to `base_url` (http, https or unix:/path); there is no limit on how many are open.

    Redirects, cookies and proxies are not followed, kept or used.
    """

    def __init__(self, base_url: str, timeout: httpx.Timeout) -> None:
        self._uds = base_url.removeprefix("unix:") if base_url.startswith("unix:") else None
        self._base_url = "http://localhost" if self._uds else base_url.rstrip("/")
        # aiohttp's `connect` bounds the look-up of the name as well; for a place in the pool, which it also covers, nobody waits.
        self._timeout = aiohttp.ClientTimeout(connect=timeout.connect, sock_read=timeout.read)
        self._session: aiohttp.ClientSession | None = None
        # Parsing a URL costs as much as sending a request, and nearly all requests go to a few paths.
        self._urls: dict[str, URL] = {}

    async def send(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Reply:
        with _translated():
            url, data = self._url(path), content or None
            response = await self._open().request(method, url, headers=headers, data=data, allow_redirects=False)
        return _AiohttpReply(response)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str) -> URL:
        if (url := self._urls.get(path)) is None:
            url = URL(self._base_url + path, encoded=True)
            if len(self._urls) < MOST_PATHS:
                self._urls[path] = url
        return url

    def _open(self) -> aiohttp.ClientSession:
        # A session belongs to the event loop that it is made in, so the first request makes it.
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._uds:
                connector = aiohttp.UnixConnector(self._uds, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            else:
                tls = ssl.create_default_context() if self._base_url.startswith("https:") else False
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            )
        return self._session


class _AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status_code = response.status
        self._response = response

    async def aread(self) -> bytes:
        with _translated():
            return await self._response.read()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        with _translated():
            read = self._response.content.readany
            while part := await read():
                yield part

    async def aclose(self) -> None:
        # After its end the connection has gone back to the pool already, and this does nothing.
        self._response.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, ValueError) as error:
        if isinstance(error.__cause__, ContentEncodingError):
            raise httpx.DecodingError(error.__cause__.message) from error
        kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        raise kind(str(error) or type(error).__name__) from error
