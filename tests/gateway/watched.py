"""A gateway over a real HTTP server, whose turns are watched; the services behind it are stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from services.gateway.api import chat, feedback, messages, responses
from services.gateway.api.headers import TruthHeaders
from services.gateway.api.turns import Turns, Watcher
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.records.feedback import Feedback, JudgementLog
from services.gateway.records.record import TurnRecord
from services.gateway.records.stored import Blobs, MemoryBlobs, StoredResponses
from services.gateway.toolsets import Catalogue, Toolset
from services.gateway.upstreams import NOTHING_LEAVES, Upstreams
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.calls import Ladder
from services.shared.contracts.tools import JsonObject, tools_digest
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine, tool
from tests.shared.serving import served

TOOLS = [tool("read_file", path={"type": "string"}), tool("list_directory")]
CATALOGUE = Catalogue("base", [Toolset("files", TOOLS, tools_digest(TOOLS))])


@dataclass
class Seen:
    """Implements `Watcher`: the turns that ended well."""

    turns: list[TurnRecord] = field(default_factory=list)

    def began(self, turn: TurnRecord) -> None:
        pass

    def ended(self, turn: TurnRecord) -> None:
        self.turns.append(turn)

    async def aclose(self) -> None:
        pass


@dataclass
class Watched:
    """A client of the gateway, and the turns it has ended."""

    client: httpx.AsyncClient
    seen: Seen

    async def chat(self, messages: list[JsonObject], **fields: Any) -> httpx.Response:
        body = {"model": "base", "messages": messages, "tools": [each.openai() for each in TOOLS], **fields}
        return await self.client.post("/v1/chat/completions", json=body)

    async def value(self, metric: str) -> float | None:
        """Of one line of /metrics."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric} ")), None)


@asynccontextmanager
async def watched_gateway(
    *,
    selector: Any = None,
    writer: Any = None,
    engine: Any = None,
    blobs: Blobs | None = None,
    log: JudgementLog | None = None,
    watchers: Sequence[Watcher] = (),
    upstreams: Upstreams = NOTHING_LEAVES,
) -> AsyncIterator[Watched]:
    app = FastAPI()
    edge = install_edge(app, ServiceSettings())
    pipeline = Pipeline(
        engine or ScriptedEngine(),
        selector or FakeSelector(lambda _: "read_file"),
        writer or FakeWriter(),
        FakeMemory(),
        CATALOGUE,
        Ladder(),
        LookAhead(FakeWriter(), adapters=0),
        upstreams=upstreams,
    )
    metrics, seen = GatewayMetrics(edge.registry), Seen()
    judging = Feedback(blobs or MemoryBlobs(ttl_s=60), metrics, CATALOGUE, log)
    turns = Turns(pipeline, metrics, 30, keepalive_s=5, watchers=[seen, *watchers, judging])
    app.include_router(chat.router(turns, CATALOGUE))
    app.include_router(feedback.router(judging))
    stored = StoredResponses(MemoryBlobs(ttl_s=60), metrics, max_record_bytes=1 << 20, max_history_bytes=1 << 20)
    app.include_router(responses.router(turns, CATALOGUE, stored, strict_fields=False, unknown_tools="ignore"))
    app.include_router(messages.router(turns, CATALOGUE, unknown_tools="ignore"))
    app.add_middleware(TruthHeaders)
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield Watched(client, seen)
