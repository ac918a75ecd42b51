"""The headers that every reply has, whichever door it leaves by: how its turn went, and the version of OpenAI's API."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.records.record import TurnRecord

OPENAI_VERSION = "2020-10-01"

_turns: ContextVar[list[TurnRecord] | None] = ContextVar("turns of the request", default=None)


def tell_about(turn: TurnRecord) -> None:
    """The reply to the request that is being served tells about `turn`."""
    if (turns := _turns.get()) is not None:
        turns.append(turn)


class TruthHeaders:
    """ASGI middleware that completes the headers of a reply when it starts: with all of its turn, or what is known by then."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        turns: list[TurnRecord] = []
        # Set anew for every request: on one connection they may run in one context.
        _turns.set(turns)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["openai-version"] = OPENAI_VERSION
                for turn in turns:
                    headers.update(turn.headers())
            await send(message)

        await self.app(scope, receive, tell)
