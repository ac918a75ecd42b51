"""The selector over HTTP."""

from __future__ import annotations

from services.shared.clients.http import HttpClient
from services.shared.contracts.selection import Selection, SelectionRequest


class SelectorClient:
    """Implements the `ToolSelector` Protocol."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def select(self, request: SelectionRequest) -> Selection:
        """One vote; raises the selector's own errors, Unavailable or DeadlineExceeded."""
        return await self._http.ask("/v1/select", request, Selection)

    async def ready(self) -> str | None:
        """None when the selector answers, else why not."""
        return await self._http.obstacle()

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()
