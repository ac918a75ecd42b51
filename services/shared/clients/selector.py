"""The selector over HTTP."""

from __future__ import annotations

from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.selection import Selection, SelectionRequest


class SelectorClient:
    """Implements the `ToolSelector` Protocol."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def select(self, request: SelectionRequest) -> Selection:
        """One vote; raises the selector's own errors, Unavailable or DeadlineExceeded."""
        return Selection.model_validate(await self._http.post("/v1/select", request.model_dump(exclude_none=True)))

    async def ready(self) -> str | None:
        """None when the selector answers, else why not."""
        try:
            await self._http.get("/livez")
        except AgentFluxError as error:
            return error.message
        return None

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()
