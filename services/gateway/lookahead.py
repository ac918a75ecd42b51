"""While a tool runs, lets the likely next adapters read the conversation so far, so that the next turn starts warm."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from services.shared.contracts.arguments import ArgumentGenerator, ArgumentsRequest
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.tools import JsonObject

log = structlog.get_logger()

# A tool that follows in a smaller share of the turns is not worth an engine's time.
_LEAST_SHARE = 0.2


class Habits:
    """Which tool was called after which, in the turns seen so far. `before` is None for the first call of a conversation."""

    def __init__(self) -> None:
        self._followed: dict[tuple[str, str | None], Counter[str]] = defaultdict(Counter)

    def note(self, toolset: str, before: str | None, tool: str) -> None:
        """One more turn in which `tool` followed `before`; both are of a registered toolset, so there are few."""
        self._followed[toolset, before][tool] += 1

    def likely_next(self, toolset: str, tool: str, limit: int) -> list[str]:
        """At most `limit` tools that tend to follow `tool`, the likeliest first."""
        counts = self._followed.get((toolset, tool), Counter())
        return [name for name, count in counts.most_common(limit) if count >= _LEAST_SHARE * counts.total()]


class LookAhead:
    """Prepares up to `adapters` argument adapters after a call, only while no turn is under way: any turn ends it."""

    def __init__(self, arguments: ArgumentGenerator, *, adapters: int) -> None:
        self._arguments = arguments
        self._adapters = adapters
        self._habits = Habits()
        self._turns = 0
        self._preparing: set[asyncio.Task[None]] = set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn is under way."""
        self._turns += 1
        for task in self._preparing:
            task.cancel()
        try:
            yield
        finally:
            self._turns -= 1

    def called(self, request: ArgumentsRequest, before: str | None, call: JsonObject) -> None:
        """`request` was answered with `call`, an assistant's message, after a call of `before`."""
        toolset = request.toolset
        if not self._adapters or toolset is None:
            return
        self._habits.note(toolset.name, before if before in toolset.tools else None, request.tool)
        # The turn that has just been answered counts as one until its client has read it.
        if self._turns > 1:
            return
        known = {tool.name for tool in request.tools}
        likely = [name for name in self._habits.likely_next(toolset.name, request.tool, self._adapters) if name in known]
        if likely:
            task = asyncio.create_task(self._prepare(request, likely, [*request.messages, call]))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def aclose(self) -> None:
        """Ends what is being prepared."""
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)

    async def _prepare(self, request: ArgumentsRequest, tools: Sequence[str], messages: list[JsonObject]) -> None:
        for tool in tools:
            try:
                await self._arguments.prepare(request.model_copy(update={"tool": tool, "messages": messages}))
            except AgentFluxError as error:
                log.warning("adapter not prepared", tool=tool, error=error.message)


def last_called(messages: Sequence[JsonObject]) -> str | None:
    """The tool of the conversation's last call."""
    for message in reversed(messages):
        if calls := message.get("tool_calls"):
            name: str = calls[-1]["function"]["name"]
            return name
    return None
