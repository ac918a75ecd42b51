"""httpx's requests and errors over aiohttp's connections: aiohttp parses in C, and a request costs a fifth of the time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx

# Idle connections are let go before a server does it (vLLM after 5 s), so that no request meets a closing one.
KEEP_ALIVE_S = 3.0

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
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """For requests whose body is in memory. `uds` is the unix socket to connect to instead of the URL's host.

    Leaving a response before its end closes its connection; there is no limit on how many are open. Redirects, cookies and
    proxies are not followed, kept or used.
    """

    def __init__(self, *, uds: str | None = None) -> None:
        self._uds = uds
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request; the response's body is read as it arrives.

        Raises:
            httpx.TransportError: as httpx's own transports do.
        """
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read"))
        with _translated():
            response = await self._open().request(
                request.method,
                str(request.url),
                headers=request.headers,
                data=request.content or None,
                timeout=timeout,
                allow_redirects=False,
            )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response), request=request)

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # A session belongs to the event loop that it is made in, so the first request makes it.
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._uds:
                connector = aiohttp.UnixConnector(self._uds, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            else:
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                # httpx decodes what is compressed, by the headers that then still say so.
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            )
        return self._session


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        # After its end the connection has gone back to the pool already, and this does nothing.
        self._response.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, aiohttp.ServerTimeoutError) as error:
        kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        raise kind(str(error) or type(error).__name__) from error
