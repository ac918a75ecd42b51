"""Asks vLLM, where it listens, how it is and what it has measured."""

from __future__ import annotations

import httpx


class VllmProbe:
    """vLLM's own health and metrics; `url` is `unix:/path` or `http://host:port`."""

    def __init__(self, url: str) -> None:
        uds = url.removeprefix("unix:") if url.startswith("unix:") else None
        self._client = httpx.AsyncClient(
            base_url="http://engine" if uds else url,
            transport=httpx.AsyncHTTPTransport(uds=uds) if uds else None,
            timeout=5.0,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def complaint(self) -> str | None:
        """None when vLLM says that it can serve, else what is wrong."""
        try:
            response = await self._client.get("/health")
        except httpx.TransportError as error:
            return f"vLLM does not answer: {str(error) or type(error).__name__}"
        return None if response.is_success else f"vLLM says {response.status_code} to /health"

    async def metrics(self) -> str | None:
        """vLLM's metrics page, or None while there is none."""
        try:
            response = await self._client.get("/metrics")
        except httpx.TransportError:
            return None
        return response.text if response.is_success else None
