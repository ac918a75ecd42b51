"""The call cache over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from services.shared.clients.breaker import Breaker
from services.shared.clients.http import HttpClient
from services.shared.contracts.calls import LookBack, Standings


class CallCacheClient:
    """Implements the `CallMemory` Protocol. Every method raises Unavailable or DeadlineExceeded when the service is away."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float,
        breaker: Breaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = HttpClient(base_url, service="callcache", timeout_s=timeout_s, breaker=breaker, transport=transport)

    async def look_back(self, request: LookBack) -> Standings:
        """Reports the calls of a conversation and returns those which stand on the ladder."""
        return await self._http.ask("/v1/look-back", request, Standings)

    async def clear(self, conversation: str) -> None:
        """Forgets a conversation: its turn ended with an answer."""
        # A dot is quoted too: a URL path may not consist of `..`.
        await self._http.delete(f"/v1/conversations/{quote(conversation, safe='').replace('.', '%2E')}")

    async def ready(self) -> str | None:
        """None when the service answers, else why not."""
        return await self._http.obstacle()

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()
