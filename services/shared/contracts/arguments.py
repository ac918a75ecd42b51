"""With which arguments: the request to the argument service, its answer, and the Protocol of whoever writes them."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, Field

from services.shared.contracts.tools import JsonObject, Tool, ToolsetRef
from services.shared.contracts.usage import Usage


class ArgumentsRequest(BaseModel):
    """Write the arguments of `tool`, one of `tools`; toolset, prompt and order of tools are those of the selection before it.

    `release` is the one that voted, so that a publish in between never mixes two; None takes the one that serves now.
    """

    tool: str
    tools: list[Tool] = Field(min_length=1, max_length=128)
    toolset: ToolsetRef | None = None
    release: int | None = None
    messages: list[JsonObject] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None


class GeneratedArguments(BaseModel):
    """The arguments as JSON text, valid against the tool's schema unless `finish_reason` is `length`.

    `length` means that the caller's own `max_tokens` ended the text early, as OpenAI reports it; `attempts` counts engine
    calls: 0 for a tool without parameters, 2 when the first try was invalid. `adapter` is the model that wrote, `release`
    the release it belongs to.
    """

    arguments: str
    finish_reason: Literal["stop", "length"] = "stop"
    attempts: int
    adapter: str
    release: int | None = None
    usage: Usage = Usage()
    timings: dict[str, float] = {}


class ArgumentGenerator(Protocol):
    """Whoever can write the arguments of a chosen tool.

    Raises:
        InvalidToolSchema: the tool's schema cannot be used.
        ArgumentsInvalid: two tries did not satisfy it.
    """

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments: ...

    async def prepare(self, request: ArgumentsRequest) -> Usage:
        """Lets the adapter that would write them read the conversation, behind everything that somebody waits for."""
        ...
