"""The door for GET /v1/models: the base model, the registered toolsets, and the adapters of their releases.

Clients of Anthropic's API, which name their version of it, get the same as its objects ("List Models").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog
from fastapi import APIRouter, Request

from services.gateway.toolsets import Catalogue
from services.shared.contracts.adapters import Manifest, Release
from services.shared.contracts.errors import AgentFluxError, ModelNotFound, Unavailable
from services.shared.contracts.tools import JsonObject

log = structlog.get_logger()

# A publish shows within this many seconds, and the volume is not read more often, however often somebody asks.
FRESH_S = 1.0
# A volume that hangs holds back no reply longer, and one thread.
READ_TIMEOUT_S = 2.0
# Every request of Anthropic's clients has this header.
ANTHROPIC = "anthropic-version"

Look = Callable[[], tuple[Mapping[str, Manifest], Mapping[str, str]]]
"""The manifests in the adapter store by toolset, and why others cannot be read; blocking."""


class PublishedReleases:
    """The newest release of every toolset, from its manifest; the adapters themselves are not looked at."""

    def __init__(self, look: Look, *, fresh_s: float = FRESH_S, timeout_s: float = READ_TIMEOUT_S) -> None:
        self._look = look
        self._fresh_s = fresh_s
        self._timeout_s = timeout_s
        self._reading: asyncio.Task[dict[str, Release]] | None = None
        self._read_at = 0.0

    async def newest(self) -> dict[str, Release]:
        """The release that was promoted last, by toolset.

        Raises:
            Unavailable: the store cannot be read.
        """
        now = time.monotonic()
        if self._reading is None or (self._reading.done() and now - self._read_at > self._fresh_s):
            self._reading, self._read_at = asyncio.create_task(self._read()), now
        try:
            async with asyncio.timeout(self._timeout_s):
                # Others wait for the same reading.
                return await asyncio.shield(self._reading)
        except TimeoutError:
            raise Unavailable(f"the adapter store did not answer within {self._timeout_s:g} s") from None

    async def _read(self) -> dict[str, Release]:
        manifests, _ = await asyncio.to_thread(self._look)
        return {toolset: manifest.current for toolset, manifest in manifests.items()}


def router(catalogue: Catalogue, releases: PublishedReleases | None, *, created: int) -> APIRouter:
    """The routes; `created` (Unix seconds) is when this deployment came up. Without `releases` there are no adapters."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def models(http: Request) -> JsonObject:
        try:
            newest = await releases.newest() if releases else {}
        except AgentFluxError as error:
            log.warning("adapters are not listed", error=error.message)
            newest = {}
        entries = _entries(catalogue, newest, created)
        if ANTHROPIC in http.headers:
            ends = {"first_id": catalogue.base_model, "last_id": list(entries)[-1]}
            return {"data": [_as_anthropics(entry) for entry in entries.values()], "has_more": False, **ends}
        return {"object": "list", "data": list(entries.values())}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str, http: Request) -> JsonObject:
        newest = await releases.newest() if releases and name not in catalogue.models else {}
        entries = _entries(catalogue, newest, created)
        if name not in entries:
            raise ModelNotFound(f"there is no model {name!r:.300}; GET /v1/models lists them: {', '.join(catalogue.models)}")
        return _as_anthropics(entries[name]) if ANTHROPIC in http.headers else entries[name]

    return routes


def _as_anthropics(entry: JsonObject) -> JsonObject:
    """OpenAI's model object as Anthropic's."""
    created_at = datetime.fromtimestamp(entry["created"], UTC).isoformat()
    return {"type": "model", "id": entry["id"], "display_name": entry["id"], "created_at": created_at}


def _entries(catalogue: Catalogue, newest: Mapping[str, Release], created: int) -> dict[str, JsonObject]:
    """OpenAI's model objects by name. `parent` is what a toolset and its adapters are made for; `release` is the adapter's."""
    base = {"object": "model", "created": created, "owned_by": "agentflux"}
    entries: dict[str, JsonObject] = {catalogue.base_model: {"id": catalogue.base_model, **base}}
    for name in catalogue.toolsets:
        entries[name] = {"id": name, **base, "parent": catalogue.base_model}
    for toolset, release in newest.items():
        told = {"created": _promoted(release) or created, "toolset": toolset, "release": release.number}
        for name in release.adapters.names:
            entries[name] = {"id": name, **base, "parent": catalogue.base_model, **told}
    return entries


def _promoted(release: Release) -> int | None:
    """Unix seconds; None where a manifest that somebody edited has no time there."""
    try:
        return int(datetime.fromisoformat(release.promoted_at).timestamp())
    except ValueError:
        return None
