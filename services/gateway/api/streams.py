"""What the doors share: whose session and how private a request is, and server-sent events that end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from services.gateway.api.turns import Turn
from services.gateway.events import Event
from services.gateway.upstreams import says_private
from services.gateway.wire.encoding import as_json
from services.shared.contracts.errors import AgentFluxError

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


class Frames(Protocol):
    """How a door words a turn: every method gives server-sent events."""

    def opening(self) -> Iterable[bytes]:
        """What comes before anything has happened."""

    def of(self, event: Event) -> Iterable[bytes]: ...

    def silence(self) -> Iterable[bytes]:
        """What shows that the turn goes on though nothing happens."""

    def end(self) -> AsyncIterator[bytes]:
        """What follows the last event; an AgentFluxError on the way is followed by the `failure`."""

    def failure(self, error: AgentFluxError) -> Iterable[bytes]: ...


async def event_stream(turn: Turn, frames: Frames) -> Response:
    """The streamed reply of `turn`, in the words of `frames`.

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

    def __init__(self, frames: Frames, turn: Turn, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._frames = frames
        self._turn = turn
        # What comes together leaves together: writing is what costs most.
        self._unsent: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        async with self._turn as turn:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._unsent.extend(self._frames.opening())
            await self.flush()
            try:
                if (failure := await turn.tell(self)) is not None:
                    raise failure
                # A door may have to wait before it can end.
                await self.flush()
                async for frame in self._frames.end():
                    self._unsent.append(frame)
            except AgentFluxError as error:
                self._unsent.extend(self._frames.failure(error))
            # Its headers went out when only its beginning was known.
            self._unsent.append(f": server-timing {turn.record.timing.header()}\n\n".encode())
            await self._write(more=False)

    def take(self, event: Event) -> None:
        for frame in self._frames.of(event):
            self._unsent.append(frame)

    async def flush(self) -> None:
        if self._unsent:
            await self._write(more=True)

    async def keep_alive(self) -> None:
        self._unsent.extend(self._frames.silence())
        await self._write(more=True)

    async def _write(self, *, more: bool) -> None:
        piece = b"".join(self._unsent)
        self._unsent.clear()
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})
        except BaseException:
            # A deadline came while the client read nothing; servers wait for that before they write.
            self._unsent.insert(0, piece)
            raise


def data_frame(payload: object, *, event: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2): `payload` as JSON, with an `event:` line where it has a name."""
    named = b"event: " + event.encode() + b"\n" if event else b""
    return named + b"data: " + as_json(payload) + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients ignore and proxies take for life."""

DONE = b"data: [DONE]\n\n"
"""What ends a stream on OpenAI's older wires."""
