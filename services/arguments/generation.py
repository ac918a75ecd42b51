"""Writes the arguments of a chosen tool: forced prefix, constrained decoding, validation, one retry that shows the reason."""

from __future__ import annotations

import asyncio
import time

from services.arguments.validation import grammar_schema, problem
from services.shared.contracts.adapters import Releases, Serving
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.engine import BACKGROUND_PRIORITY, Completion, CompletionRequest, Engine
from services.shared.contracts.errors import ArgumentsInvalid, ContextLengthExceeded, InvalidRequest, InvalidToolSchema
from services.shared.contracts.messages import normalised
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from services.shared.contracts.usage import Usage

# The turn is decided and its caller waits: first in the engine's queue.
PRIORITY = 0
ATTEMPTS = 2


class Writer:
    """Implements the `ArgumentGenerator` Protocol on an engine."""

    def __init__(
        self, engine: Engine, renderer: PromptRenderer, releases: Releases, *, base_model: str, max_tokens: int, grounding: float
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._releases = releases
        self._base_model = base_model
        self._max_tokens = max_tokens
        self._grounding = grounding

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        """Writes arguments that satisfy the tool's schema.

        Raises:
            InvalidRequest: the tool is not among the tools.
            InvalidToolSchema, ArgumentsInvalid, ContextLengthExceeded: as the names say.
            Unavailable: the release that voted is not known here.
        """
        started = time.perf_counter()
        tool = _chosen(request)
        compiled_schema(tool)
        if not tool.has_parameters:
            return GeneratedArguments(arguments="{}", attempts=0, adapter=self._base_model, release=request.release)
        writer = await self._writer(request)
        messages, usage, reason = request.messages, Usage(), ""
        for attempt in range(1, ATTEMPTS + 1):
            written, cost = await self._write(request, writer, tool, messages)
            usage += cost
            reason = problem(tool, written.text) or ""
            cut_by_caller = written.finish_reason == "length" and request.max_tokens is not None
            if not reason or cut_by_caller:
                return GeneratedArguments(
                    arguments=written.text,
                    finish_reason="length" if reason else "stop",
                    attempts=attempt,
                    adapter=writer.model,
                    release=writer.release,
                    usage=usage,
                    timings={"arguments_s": time.perf_counter() - started},
                )
            if written.finish_reason == "length":
                reason = f"longer than {self._max_tokens} tokens (setting max_tokens of the argument service): {reason}"
            messages = [*messages, *_shown_failure(tool, written.text, reason)]
        raise ArgumentsInvalid(
            f"the model wrote arguments for tool {tool.name!r} that do not satisfy its schema, {ATTEMPTS} times; "
            f"the last reason: {reason}. Check that the schema can be satisfied.",
            param="tools",
        )

    async def prepare(self, request: ArgumentsRequest) -> Usage:
        """Reads tools and messages into the engine's cache for the tool's adapter; nothing to do where it has none."""
        tool = _chosen(request)
        writer = await self._writer(request)
        if writer.model == self._base_model or not tool.has_parameters:
            return Usage()
        prefix = await asyncio.to_thread(self._renderer.prefix, request.messages, writer.tools, writer.profile)
        # The prompt is cached in whole blocks, so what follows the prefix needs no guess.
        reading = CompletionRequest(model=writer.model, prompt=prefix.head, max_tokens=1, priority=BACKGROUND_PRIORITY)
        return (await self._engine.complete(reading)).usage

    async def _writer(self, request: ArgumentsRequest) -> Serving:
        toolset = request.toolset
        if toolset is None:
            return Serving(self._base_model, request.tools)
        # A request that names its release need not wait for the newest one.
        wanted = request.release
        release = self._releases.current(toolset.name) if wanted is None else await self._releases.numbered(toolset.name, wanted)
        if release is None:
            return Serving(self._base_model, request.tools)
        adapter = release.writer(toolset, request.tools, request.tool)
        return adapter or Serving(self._base_model, request.tools, release=release.number)

    async def _write(
        self, request: ArgumentsRequest, writer: Serving, tool: Tool, messages: list[JsonObject]
    ) -> tuple[Completion, Usage]:
        prompt = await asyncio.to_thread(self._prompt, writer, tool, messages)
        room = await self._engine.context_length() - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(
                f"tools and messages are {len(prompt)} tokens; no room is left in this model's context for the arguments of "
                f"tool {tool.name!r}. Shorten the conversation or the tool descriptions.",
                param="messages",
            )
        completion = CompletionRequest(
            model=writer.model,
            prompt=prompt,
            max_tokens=min(room, request.max_tokens or self._max_tokens),
            temperature=request.temperature or 0.0,
            top_p=request.top_p or 1.0,
            seed=request.seed,
            json_schema=grammar_schema(tool),
            grounding=self._grounding,
            priority=PRIORITY,
        )
        try:
            reply = await self._engine.complete(completion)
        except ContextLengthExceeded:
            raise
        except InvalidRequest as error:
            # The prompt is ours and fits, so what the engine refuses is the grammar of this schema.
            raise InvalidToolSchema(
                f"the engine cannot follow the schema of tool {tool.name!r}: {error.message}", param="tools"
            ) from error
        return reply.choices[0], reply.usage

    def _prompt(self, writer: Serving, tool: Tool, messages: list[JsonObject]) -> list[int]:
        return self._renderer.arguments_prompt(self._renderer.prefix(messages, writer.tools, writer.profile), tool.name)


def _chosen(request: ArgumentsRequest) -> Tool:
    for tool in request.tools:
        if tool.name == request.tool:
            return tool
    raise InvalidRequest(f"tool {request.tool!r} is not among the tools {[tool.name for tool in request.tools]}", param="tool")


def _shown_failure(tool: Tool, text: str, reason: str) -> list[JsonObject]:
    """The failed try as a turn of the conversation, so that the second try can read what was wrong with it."""
    call = {"id": "retry", "type": "function", "function": {"name": tool.name, "arguments": text}}
    advice = f"Error: the arguments are invalid: {reason}. Call {tool.name} again with corrected arguments."
    return normalised(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "retry", "name": tool.name, "content": advice},
        ]
    )
