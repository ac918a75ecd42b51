"""The doors for POST /v1/completions and /v1/embeddings: the engine answers them itself, on the base model.

Source: OpenAI's API reference, "Create completion" and "Create embeddings". Their fields reach the engine as they came; others,
of which an engine may have powerful ones, do not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from services.gateway.api.door import DirectRoute
from services.gateway.api.streams import DONE, KEEP_ALIVE, data_frame, event_stream
from services.gateway.api.turns import Turn, Turns
from services.gateway.events import AnswerChunk, Answered, Event
from services.gateway.toolsets import Catalogue
from services.gateway.wire.requests import StreamOptions
from services.shared.contracts.errors import AgentFluxError, InvalidRequest, UpstreamError
from services.shared.contracts.tools import JsonObject

COMPLETION_FIELDS = {
    "prompt", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed", "stop",
    "suffix", "temperature", "top_p",
}  # fmt: skip
EMBEDDING_FIELDS = {"input", "dimensions", "encoding_format"}

# The most texts that one request may have written, and read.
MAX_COMPLETIONS = 128
MAX_INPUTS = 2048


class Relay(Protocol):
    """An engine that answers what it is asked on a path of OpenAI's wire."""

    async def relay(self, path: str, body: JsonObject) -> JsonObject: ...

    def stream_relay(self, path: str, body: JsonObject) -> AsyncGenerator[JsonObject]: ...


class CompletionBody(BaseModel):
    """A completion request as it arrives; the engine checks the fields that are not named here."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    prompt: str | list[Any] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=MAX_COMPLETIONS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class EmbeddingBody(BaseModel):
    """An embedding request as it arrives; the engine checks the fields that are not named here."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    input: str | list[Any] = Field(min_length=1)


def router(turns: Turns, engine: Relay, catalogue: Catalogue) -> APIRouter:
    """The routes; `turns` gives them their deadlines."""
    routes = APIRouter(route_class=DirectRoute)

    @routes.post("/v1/completions")
    async def completions(body: CompletionBody, _: Request) -> Response:
        asked = _asked(body, COMPLETION_FIELDS, catalogue)
        if (texts := _texts_in(body.prompt) * (body.n or 1)) > MAX_COMPLETIONS:
            raise InvalidRequest(
                f"prompts times `n` are {texts} completions; at most {MAX_COMPLETIONS} are possible in one request",
                param="prompt",
            )
        if not body.stream:
            return await _whole(turns.run(_answer(engine, "/v1/completions", asked)), "choices")
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        turn = turns.run(_stream(engine, "/v1/completions", asked))
        return await event_stream(turn, _Frames(include_usage=include_usage))

    @routes.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody, _: Request) -> Response:
        asked = _asked(body, EMBEDDING_FIELDS, catalogue)
        if (texts := _texts_in(body.input)) > MAX_INPUTS:
            raise InvalidRequest(f"`input` has {texts} texts; at most {MAX_INPUTS} are possible in one request", param="input")
        return await _whole(turns.run(_answer(engine, "/v1/embeddings", asked)), "data")

    return routes


def _asked(body: BaseModel, fields: set[str], catalogue: Catalogue) -> JsonObject:
    """What the engine is asked, on the base model.

    Raises:
        ModelNotFound: there is no such model.
        InvalidRequest: it is a toolset, whose adapters know tool calls and nothing else.
    """
    given = body.model_dump(include={"model", *fields}, exclude_none=True)
    catalogue.default_tools(given["model"])
    if given["model"] != catalogue.base_model:
        raise InvalidRequest(
            f"model {given['model']!r} is a toolset, for chat; here it is the base model, {catalogue.base_model!r}", param="model"
        )
    return given


def _texts_in(prompt: str | list[Any]) -> int:
    """How many texts a prompt is: texts, lists of token ids, or one of either."""
    return len(prompt) if isinstance(prompt, list) and isinstance(prompt[0], str | list) else 1


async def _answer(engine: Relay, path: str, asked: JsonObject) -> AsyncGenerator[Event]:
    yield Answered(await engine.relay(path, asked))


async def _stream(engine: Relay, path: str, asked: JsonObject) -> AsyncGenerator[Event]:
    async with aclosing(engine.stream_relay(path, asked)) as chunks:
        async for chunk in chunks:
            yield AnswerChunk(chunk)


async def _whole(turn: Turn, content: str) -> Response:
    answers: list[Event] = []
    await turn.whole(answers.append)
    [answer] = [event for event in answers if isinstance(event, Answered)]
    return JSONResponse(_known(answer.body, content))


class _Frames:
    """The engine's chunks, and `[DONE]`."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    def opening(self) -> Iterable[bytes]:
        return ()

    def of(self, event: Event) -> Iterable[bytes]:
        if isinstance(event, AnswerChunk):
            chunk = _known(event.chunk, "choices")
            # The engine always tells its usage, for the metrics.
            usage = chunk.pop("usage", None)
            if self._include_usage:
                yield data_frame({**chunk, "usage": usage})
            elif chunk["choices"]:
                yield data_frame(chunk)

    def silence(self) -> Iterable[bytes]:
        return (KEEP_ALIVE,)

    async def end(self) -> AsyncIterator[bytes]:
        yield DONE

    def failure(self, error: AgentFluxError) -> Iterable[bytes]:
        return data_frame(error.envelope()), DONE


def _known(reply: JsonObject, content: str) -> JsonObject:
    """OpenAI's fields only, for engines have more."""
    known: JsonObject = {name: reply[name] for name in ("id", "object", "created", "model", "usage") if name in reply}
    entries = reply.get(content)
    if not isinstance(entries, list):
        raise UpstreamError(f"the engine answered without `{content}`")
    if content == "data":
        return {**known, "data": entries}
    fields = ("index", "text", "logprobs", "finish_reason")
    return {**known, "choices": [{name: entry.get(name) for name in fields} for entry in entries]}
