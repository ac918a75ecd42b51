"""Which tool: the request to the selector, its answer, and the Protocol of whoever selects."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, Field

from services.shared.contracts.tools import JsonObject, Tool, ToolsetRef
from services.shared.contracts.usage import Usage

Strategy = Literal["exact", "sample"]

# The tool name that stands for "answer the user in text", when no tool of the request bears it.
ANSWER_LABEL = "summarize"


class SelectionRequest(BaseModel):
    """One decision: which of `candidates`, or an answer in text, comes next in this conversation.

    `tools` are shown in the prompt, in this order; `candidates` (names among them; None: all) may win. Keeping the
    prompt whole while candidates leave the vote keeps its prefix in the engine's cache. `toolset` is the registered toolset
    of the tools, whose adapters may serve; None for tools that nobody registered.
    """

    tools: list[Tool] = Field(min_length=1, max_length=128)
    toolset: ToolsetRef | None = None
    candidates: list[str] | None = None
    messages: list[JsonObject] = Field(min_length=1)
    may_answer: bool = True
    strategy: Strategy | None = None
    seed: int | None = None


class Selection(BaseModel):
    """The decision and how sure it is.

    Shapes: `probabilities` has one entry per candidate and, where answering was allowed, one for the label; they sum to 1.
    `tally` counts the samples (strategy `sample` only; unparsable ones are missing from it). `margin` is the lead of the
    winner over the likeliest other label, -1..1: below 0 the answer was likelier, but not likely enough (answer_threshold).
    `valid_mass` is the probability, before renormalising, that the model names any
    candidate at all (strategy `exact`), or the share of samples that parsed. `adapter` is the model that voted;
    `release` is the toolset's release it belongs to, None for the base model. The arguments are to be of the same release.
    """

    tool: str | None
    probabilities: dict[str, float]
    tally: dict[str, int] | None = None
    margin: float
    valid_mass: float
    strategy: Strategy
    adapter: str
    release: int | None = None
    usage: Usage = Usage()
    timings: dict[str, float] = {}


class ToolSelector(Protocol):
    """Whoever can decide which tool comes next."""

    async def select(self, request: SelectionRequest) -> Selection: ...
