"""The argument service over HTTP."""

from __future__ import annotations

from services.shared.clients.http import HttpClient
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.errors import AgentFluxError


class ArgumentsClient:
    """Implements the `ArgumentGenerator` Protocol."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        """The arguments; raises the service's own errors, Unavailable or DeadlineExceeded."""
        return GeneratedArguments.model_validate(await self._http.post("/v1/arguments", request.model_dump(exclude_none=True)))

    async def ready(self) -> str | None:
        """None when the service answers, else why not."""
        try:
            await self._http.get("/livez")
        except AgentFluxError as error:
            return error.message
        return None

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()
