"""Was this call made before: call keys, the loop ladder's vocabulary, and the Protocol of whoever remembers calls."""

from __future__ import annotations

import json
from typing import Literal, Protocol

from pydantic import BaseModel, Field

from services.shared.contracts.tools import sha256_of

Step = Literal["none", "warn", "withdraw", "block"]


class Ladder(BaseModel):
    """After how many identical calls with an identical result each step is taken; 0 turns a step off."""

    warn: int = Field(default=3, ge=0)
    withdraw: int = Field(default=5, ge=0)
    block: int = Field(default=10, ge=0)

    def step(self, repeats: int) -> Step:
        """The highest step that `repeats` identical calls have reached."""
        if self.block and repeats >= self.block:
            return "block"
        if self.withdraw and repeats >= self.withdraw:
            return "withdraw"
        return "warn" if self.warn and repeats >= self.warn else "none"


class MadeCall(BaseModel):
    """A call that the request's history shows together with its result.

    `call_id` is the `tool_call_id`; it tells one call made twice from one call reported twice.
    """

    call_id: str = Field(max_length=256)
    tool: str = Field(max_length=128)
    arguments: str
    result: str

    @property
    def call_key(self) -> str:
        """SHA-256 of tool + arguments; two spellings of the same JSON share it, text that is no JSON counts as it is."""
        try:
            return sha256_of([self.tool, json.loads(self.arguments)])
        except (ValueError, RecursionError):
            return sha256_of([self.tool, "unparsed", self.arguments])

    @property
    def result_digest(self) -> str:
        """SHA-256 of the result's text."""
        return sha256_of(self.result)


class LookBack(BaseModel):
    """What a conversation has called so far in this turn, oldest first."""

    conversation: str = Field(min_length=1, max_length=256)
    calls: list[MadeCall] = Field(max_length=1024)


class Standing(BaseModel):
    """One repeated call: how often it gave this same result, and the step of the ladder that it has reached."""

    tool: str
    call_key: str
    repeats: int
    step: Step


class Standings(BaseModel):
    """The calls of a conversation that stand on the ladder. `shared` is False when Redis could not be asked and only the
    request's own history was counted."""

    standings: list[Standing] = []
    shared: bool = True


class CallMemory(Protocol):
    """Whoever remembers the calls of a conversation across requests."""

    async def look_back(self, request: LookBack) -> Standings: ...

    async def clear(self, conversation: str) -> None: ...
