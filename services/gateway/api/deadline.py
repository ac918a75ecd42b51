"""The last bound on a request's time, also while it waits for a client that reads nothing more."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger()

# Beyond the deadline of the turn: its error is still written to whoever reads.
LAST_WORDS_S = 5.0


class Deadline:
    """ASGI middleware around everything. What still goes on `LAST_WORDS_S` after `request_timeout_s` is cancelled, and the server
    closes the connection, for the reply is not whole: servers wait without limit before they write to who does not read."""

    def __init__(self, app: ASGIApp, *, request_timeout_s: float) -> None:
        self.app = app
        self.seconds = request_timeout_s + LAST_WORDS_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.seconds) as bound:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not bound.expired():
                raise
            log.warning("request cut off: its client does not read", path=scope["path"])
