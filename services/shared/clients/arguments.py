"""The argument service over HTTP."""

from __future__ import annotations

from services.shared.clients.http import HttpClient
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.usage import Usage


class ArgumentsClient:
    """Implements the `ArgumentGenerator` Protocol."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        """The arguments; raises the service's own errors, Unavailable or DeadlineExceeded."""
        return await self._http.ask("/v1/arguments", request, GeneratedArguments)

    async def prepare(self, request: ArgumentsRequest) -> Usage:
        """What it cost to read the conversation."""
        return await self._http.ask("/v1/arguments/prepare", request, Usage)

    async def ready(self) -> str | None:
        """None when the service answers, else why not."""
        return await self._http.obstacle()

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()
