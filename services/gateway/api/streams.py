"""What the doors share: whose session and how private a request is, and server-sent events that end with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from services.gateway.api.turns import Turn
from services.gateway.upstreams import says_private
from services.gateway.wire.encoding import as_json

# Headers by which a client names its session, the first present one counts.
SESSION_HEADERS = ("x-session-id", "session-id", "x-session-affinity")
PRIVATE_HEADER = "x-agentflux-private"


def session_of(http: Request) -> str | None:
    """The session that the client names, if it does."""
    return next((http.headers[name] for name in SESSION_HEADERS if name in http.headers), None)


def is_private(http: Request, body: BaseModel) -> bool:
    """Whether a request was marked as one that never leaves the premises: by a header, or in the body's `metadata`."""
    metadata = getattr(body, "metadata", None)
    metadata = metadata.model_extra if isinstance(metadata, BaseModel) else metadata
    marked = metadata.get("private") if isinstance(metadata, dict) else None
    return says_private(http.headers.get(PRIVATE_HEADER)) or says_private(marked)


async def event_stream(turn: Turn, frames: AsyncGenerator[bytes]) -> Response:
    """The streamed reply of `turn`, whose events `frames` turns into server-sent events.

    The status line waits for the first event, or for as long as clients bear silence, so that early errors get their own
    status.

    Raises:
        AgentFluxError: the turn failed before its first event.
    """
    try:
        await turn.begin()
    except BaseException:
        await turn.aclose()
        raise
    return EventStream(frames, turn, {"cache-control": "no-cache", "x-accel-buffering": "no"})


class EventStream(Response):
    """Server-sent events of a turn, which ends with them: at once when the client leaves, not when they are collected."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes], turn: Turn, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._frames = frames
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unsent: list[bytes] = []

        async def flush() -> None:
            if unsent:
                piece = b"".join(unsent)
                unsent.clear()
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        # What arrived together leaves together: under load, writing is what costs most.
        self._turn.pausing = flush
        async with self._turn, aclosing(self._frames) as frames:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for frame in frames:
                unsent.append(frame)
            # Its headers went out when only its beginning was known.
            unsent.append(f": server-timing {self._turn.record.timing.header()}\n\n".encode())
            await send({"type": "http.response.body", "body": b"".join(unsent), "more_body": False})


def data_frame(payload: object, *, event: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2): `payload` as JSON, with an `event:` line where it has a name."""
    named = b"event: " + event.encode() + b"\n" if event else b""
    return named + b"data: " + as_json(payload) + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients ignore and proxies take for life."""
