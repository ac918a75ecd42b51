"""The engine over vLLM's OpenAI wire: scores, samples and constrained text by token ids, plain chat as it comes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from services.shared.clients.http import HttpClient
from services.shared.contracts.engine import BACKGROUND_PRIORITY, Completion, CompletionRequest, Completions, Scores
from services.shared.contracts.errors import (
    AgentFluxError,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    UpstreamError,
)
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

# vLLM refuses a larger `logprob_token_ids` (vllm/sampling_params.py).
MAX_SCORED_TOKENS = 128

# How vLLM 0.3x words a prompt, or a prompt plus max_tokens, that exceeds max_model_len.
_CONTEXT_OVERFLOW = re.compile(
    r"maximum (context|model) length|max_model_len|longer than the maximum|input_tokens|context length", re.I
)


class EngineClient:
    """What `Engine` asks, of one engine. Each silence of a reply is bounded by the time limit of `http`."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        """One forward pass per prompt, all in one call; at most 128 `token_ids`."""
        body = {
            "model": model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(token_ids),
            "logprob_token_ids": token_ids,
            "return_tokens_as_token_ids": True,
            "priority": priority,
        }
        reply = await self._post("/v1/completions", body)
        rows = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        logprobs = [_logprobs_of(row) for row in rows]
        if len(logprobs) != len(prompts) or any(token not in row for row in logprobs for token in token_ids):
            raise UpstreamError("the engine did not score every token it was asked for; is it vLLM 0.32 with --max-logprobs 128?")
        return Scores(logprobs=logprobs, usage=Usage.of_reply(reply))

    async def complete(self, request: CompletionRequest) -> Completions:
        """`n` continuations; a `json_schema` constrains every one of them."""
        body: dict[str, Any] = {
            "model": request.model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "n": request.n,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "priority": request.priority,
            # vLLM fills what a request leaves out from the model's generation_config.json; a vote and a grammar want the
            # model's own distribution.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = request.stop
        if request.json_schema is not None:
            body["structured_outputs"] = {"json": request.json_schema, "disable_any_whitespace": True}
        reply = await self._post("/v1/completions", body)
        choices = [
            Completion(text=choice["text"], finish_reason="length" if choice["finish_reason"] == "length" else "stop")
            for choice in sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        ]
        return Completions(choices=choices, usage=Usage.of_reply(reply))

    async def warm(self, model: str, prompt: list[int]) -> None:
        """One token of `model`, behind everything else, so that its weights are in memory when somebody waits for them."""
        await self.complete(CompletionRequest(model=model, prompt=prompt, max_tokens=1, priority=BACKGROUND_PRIORITY))

    async def chat(self, body: JsonObject) -> JsonObject:
        """vLLM's chat completion, as it is."""
        return await self._post("/v1/chat/completions", {**body, "stream": False})

    async def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """vLLM's chat completion chunks, the usage chunk included."""
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with aclosing(self._http.stream_lines("/v1/chat/completions", streamed)) as lines:
                async for line in lines:
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    chunk = orjson.loads(data)
                    if "error" in chunk:
                        raise _translated(UpstreamError(f"engine: {chunk['error'].get('message')}"))
                    yield chunk
        except InvalidRequest as error:
            raise _translated(error) from error
        raise EngineUnavailable("the engine's stream ended early; it was restarted or killed")

    async def _post(self, path: str, body: JsonObject) -> JsonObject:
        try:
            reply: JsonObject = await self._http.post(path, body)
        except AgentFluxError as error:
            raise _translated(error) from error
        return reply


def _translated(error: AgentFluxError) -> AgentFluxError:
    """vLLM's own words for what has a name here."""
    if isinstance(error, InvalidRequest | UpstreamError) and _CONTEXT_OVERFLOW.search(error.message):
        return ContextLengthExceeded(error.message, param="messages")
    if "EngineDead" in error.message or "EngineCore" in error.message:
        return EngineUnavailable(f"{error.message} (the engine restarts by itself; try again)")
    return error


def _logprobs_of(choice: JsonObject) -> dict[int, float]:
    top: dict[str, float] = choice["logprobs"]["top_logprobs"][0]
    return {int(token.removeprefix("token_id:")): logprob for token, logprob in top.items()}
