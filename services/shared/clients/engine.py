"""The engine over vLLM's OpenAI wire: scores, samples and constrained text by token ids, plain chat as it comes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from services.shared.clients.http import HttpClient
from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.engine import BACKGROUND_PRIORITY, Completion, CompletionRequest, Completions, Scores
from services.shared.contracts.errors import (
    AdapterRefused,
    AgentFluxError,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
    UpstreamError,
)
from services.shared.contracts.grounding import GROUNDING_ARGUMENT
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

# vLLM refuses a larger `logprob_token_ids` (vllm/sampling_params.py).
MAX_SCORED_TOKENS = 128

# How vLLM 0.3x words a prompt, or a prompt plus max_tokens, that exceeds max_model_len.
_CONTEXT_OVERFLOW = re.compile(
    r"maximum (context|model) length|max_model_len|longer than the maximum|input_tokens|context length", re.I
)

# Where the engine has no such route, or none for its kind of model. One that does not know the model answers 404, too.
_NO_ROUTE = re.compile(r"answered 40[45]:(?!.*does not exist)|does not support \w+ API")

# The field of a relayed body that holds its prompt; messages otherwise.
_PROMPTS = {"/v1/completions": "prompt", "/v1/embeddings": "input"}


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
        if request.grounding:
            body["vllm_xargs"] = {GROUNDING_ARGUMENT: request.grounding}
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
        return await self.relay("/v1/chat/completions", {**body, "stream": False})

    def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """vLLM's chat completion chunks, the usage chunk included."""
        return self.stream_relay("/v1/chat/completions", body)

    async def count_tokens(self, body: JsonObject) -> int:
        """By vLLM's own tokenizer and chat template."""
        return int((await self._post("/tokenize", body))["count"])

    async def relay(self, path: str, body: JsonObject) -> JsonObject:
        """vLLM's reply to `body` on a path of OpenAI's wire, as it is.

        Raises:
            NotFound: this engine does not have the path, or its model no use for it.
        """
        return await self._post(path, body, prompt=_PROMPTS.get(path, "messages"))

    async def stream_relay(self, path: str, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """The chunks of vLLM's streamed reply, the usage chunk included."""
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with aclosing(self._http.stream_data(path, streamed)) as chunks:
                async for data in chunks:
                    yield _chunk(data)
        except (InvalidRequest, UpstreamError) as error:
            raise _translated(error, path, _PROMPTS.get(path, "messages"), body.get("model", "")) from error

    async def _post(self, path: str, body: JsonObject, *, prompt: str = "messages") -> JsonObject:
        try:
            reply: JsonObject = await self._http.post(path, body)
        except AgentFluxError as error:
            raise _translated(error, path, prompt, body.get("model", "")) from error
        return reply


def _translated(error: AgentFluxError, path: str, prompt: str, model: str) -> AgentFluxError:
    """vLLM's own words for what has a name here; `prompt` is the caller's field that the prompt was made from."""
    if isinstance(error, InvalidRequest | UpstreamError):
        if _CONTEXT_OVERFLOW.search(error.message):
            return ContextLengthExceeded(error.message, param=prompt)
        if _NO_ROUTE.search(error.message):
            return NotFound(f"this engine does not serve {path}; it serves one model, for one kind of task ({error.message})")
    if isinstance(error, InvalidRequest) and ADAPTER_NAME.fullmatch(model) and model in error.message:
        return AdapterRefused(error.message)
    if "EngineDead" in error.message or "EngineCore" in error.message:
        return EngineUnavailable(f"{error.message} (the engine restarts by itself; try again)")
    return error


def _chunk(data: str) -> JsonObject:
    """One chunk of a stream, of which clients may rely on `choices` being a list of objects."""
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UpstreamError(f"the engine streamed something that is not JSON: {data!r:.300}") from error
    if not isinstance(chunk, dict):
        raise _no_chunk(data)
    if isinstance(told := chunk.get("error"), dict):
        raise UpstreamError(f"engine: {told.get('message')}")
    if not isinstance(choices := chunk.get("choices"), list):
        raise _no_chunk(data)
    for choice in choices:
        if not isinstance(choice, dict):
            raise _no_chunk(data)
    return chunk


def _no_chunk(data: str) -> UpstreamError:
    return UpstreamError(f"the engine streamed something that is no chunk: {data!r:.300}")


def _logprobs_of(choice: JsonObject) -> dict[int, float]:
    top: dict[str, float] = choice["logprobs"]["top_logprobs"][0]
    return {int(token.removeprefix("token_id:")): logprob for token, logprob in top.items()}
