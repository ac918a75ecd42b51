"""What the services ask of the engine: scores, samples, constrained text, and plain chat. The wire is vLLM's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from pydantic import BaseModel

from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

# For what nobody waits for: behind arguments (0) and selections (1).
BACKGROUND_PRIORITY = 10


class Scores(BaseModel):
    """Log-probabilities of the next token: `logprobs[i][t]` for prompt `i` and token id `t`, natural log, before any
    temperature, mask or renormalising."""

    logprobs: list[dict[int, float]]
    usage: Usage = Usage()


class Completion(BaseModel):
    """One continuation of a prompt."""

    text: str
    finish_reason: Literal["stop", "length"]


class Completions(BaseModel):
    """The `n` continuations of one prompt."""

    choices: list[Completion]
    usage: Usage = Usage()


class CompletionRequest(BaseModel):
    """Continue `prompt` (token ids). With `schema` every continuation is a JSON text of that schema, without whitespace
    between its parts. `stop` strings are not part of the text. `grounding`: what a token loses that leads away from the words of
    the prompt, in nats (contracts/grounding.py); an engine that cannot do it leaves it out."""

    model: str
    prompt: list[int]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = []
    json_schema: JsonObject | None = None
    grounding: float = 0.0
    priority: int = 0


class Engine(Protocol):
    """The base model and its adapters, served.

    Every method raises EngineUnavailable, DeadlineExceeded, ContextLengthExceeded or InvalidRequest.
    """

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores: ...

    async def complete(self, request: CompletionRequest) -> Completions: ...

    async def chat(self, body: JsonObject) -> JsonObject: ...

    def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]: ...

    async def count_tokens(self, body: JsonObject) -> int:
        """Tokens that the prompt of a chat completion with `messages` and `tools` would have."""
        ...

    async def context_length(self) -> int: ...
