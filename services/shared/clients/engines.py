"""Several engines as one: requests go where their adapter and their conversation are, and around engines that are not well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from services.shared.clients.dispatch import Call, Dispatch
from services.shared.clients.engine import EngineClient
from services.shared.clients.engine_metrics import EngineMetrics
from services.shared.clients.placement import conversation_of_messages, conversation_of_prompt
from services.shared.clients.replica import Adapters, Replica
from services.shared.contracts import semconv
from services.shared.contracts.engine import CompletionRequest, Completions, Scores
from services.shared.contracts.errors import EngineUnavailable
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

Reply = TypeVar("Reply")

# What the GenAI conventions call a request to each path.
OPERATIONS = {
    "/v1/chat/completions": semconv.CHAT,
    "/v1/completions": semconv.TEXT_COMPLETION,
    "/v1/embeddings": semconv.EMBEDDINGS,
}

# Characters that stand for a conversation in a prompt that has no messages.
OPENING_CHARACTERS = 1024


class EngineFleet:
    """Implements the `Engine` Protocol on engines that serve the same base model and the same adapters.

    `metrics` is a collector, to be registered where it is to be shown.
    """

    def __init__(self, replicas: Sequence[Replica], metrics: EngineMetrics, *, timeout_s: float, adapters: Adapters) -> None:
        self.metrics = metrics
        self._replicas = replicas
        self._adapters = adapters
        self._dispatch = Dispatch(replicas, metrics, timeout_s=timeout_s)
        self._watchers: list[asyncio.Task[None]] = []
        for replica in replicas:
            metrics.show(replica.url, replica.health)

    @classmethod
    def connect(cls, urls: str, *, timeout_s: float, role: str, base_model: str, adapters: Adapters = dict) -> EngineFleet:
        """A client of the engines at `urls`, separated by commas; one is fine.

        `timeout_s` bounds a whole reply, and each silence of a streamed one. `role` is what the caller wants the engines for,
        a word of its metrics. An engine that was down reads all `adapters` before it gets requests again.
        """
        names = dict.fromkeys(url for url in (part.strip() for part in urls.split(",")) if url)
        if not names:
            raise ValueError("engine_url names no engine; write http://host:port or unix:/path, several separated by commas")
        replicas = [Replica(url, timeout_s=timeout_s) for url in names]
        return cls(replicas, EngineMetrics(role, base_model), timeout_s=timeout_s, adapters=adapters)

    async def aclose(self) -> None:
        """Stops watching and closes the connection pools."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for replica in self._replicas:
            await replica.aclose()

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        """As `EngineClient.score`."""
        call = self._begin(model, lambda: conversation_of_prompt(prompts[0]))
        with self.metrics.request(model) as spent, spent.traced():
            scores = await self._ask(call, lambda engine: engine.score(model, prompts, token_ids, priority=priority))
            spent.note(scores.usage)
            return scores

    async def complete(self, request: CompletionRequest) -> Completions:
        """As `EngineClient.complete`."""
        call = self._begin(request.model, lambda: conversation_of_prompt(request.prompt))
        with self.metrics.request(request.model) as spent, spent.traced():
            completions = await self._ask(call, lambda engine: engine.complete(request))
            spent.note(completions.usage)
            return completions

    async def chat(self, body: JsonObject) -> JsonObject:
        """As `EngineClient.chat`."""
        return await self.relay("/v1/chat/completions", {**body, "stream": False})

    def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """As `EngineClient.stream_chat`."""
        return self.stream_relay("/v1/chat/completions", body)

    async def count_tokens(self, body: JsonObject) -> int:
        """As `EngineClient.count_tokens`."""
        return await self._ask(self._begin(body["model"], lambda: b""), lambda engine: engine.count_tokens(body))

    async def relay(self, path: str, body: JsonObject) -> JsonObject:
        """As `EngineClient.relay`, with no longer a reply asked for than there can be."""
        body = await self._possible(body)
        call = self._begin(body["model"], lambda: _conversation_of(body))
        with self.metrics.request(call.model, OPERATIONS[path]) as spent, spent.traced():
            reply = await self._ask(call, lambda engine: engine.relay(path, body))
            spent.note(Usage.of_reply(reply))
            return reply

    async def stream_relay(self, path: str, body: JsonObject) -> AsyncGenerator[JsonObject]:
        """As `EngineClient.stream_relay`, with no longer a reply asked for than there can be."""
        body = await self._possible(body)
        call = self._begin(body["model"], lambda: _conversation_of(body))
        with self.metrics.request(call.model, OPERATIONS[path]) as spent:
            while True:
                with self._dispatch.attempt(call) as replica:
                    async with aclosing(replica.engine.stream_relay(path, body)) as chunks:
                        # The stream is opened by its first chunk.
                        with spent.traced():
                            async with self._dispatch.patience(call, replica):
                                chunk = await anext(chunks, None)
                        call.has_begun = True
                        replica.health.replies()
                        while chunk is not None:
                            if chunk.get("usage"):
                                spent.note(Usage.of_reply(chunk))
                            yield chunk
                            chunk = await anext(chunks, None)
                    return

    async def context_length(self) -> int:
        """Tokens that prompt and reply may have together: the least of all engines. Follows an engine that restarts."""
        self._watch()
        if not (lengths := self._context_lengths()):
            obstacles = await asyncio.gather(*(replica.obstacle() for replica in self._replicas))
            if not (lengths := self._context_lengths()):
                raise EngineUnavailable("; ".join(filter(None, obstacles)))
        return min(lengths)

    async def ready(self) -> str | None:
        """None when any engine can serve, else why none can."""
        self._watch()
        obstacles = await asyncio.gather(*(replica.obstacle() for replica in self._replicas))
        return None if None in obstacles else "; ".join(filter(None, obstacles))

    async def warm(self, model: str, prompt: list[int]) -> None:
        """Has every engine that is not down load `model` and read `prompt` (token ids).

        Raises:
            EngineUnavailable: all of them are down.
            AgentFluxError: of the first one that failed, a refusal before a failure; the message names them all.
        """
        self._watch()
        live = [replica for replica in self._replicas if replica.health.state != "down"]
        if not live:
            raise EngineUnavailable(f"no engine can load {model}: {', '.join(each.url for each in self._replicas)} are down")
        outcomes = await asyncio.gather(*(replica.refusal(model, prompt) for replica in live))
        failed = {replica.url: error for replica, error in zip(live, outcomes, strict=True) if error is not None}
        if failed:
            first = min(failed.values(), key=lambda error: error.status)
            raise type(first)("; ".join(f"engine at {url}: {error.message}" for url, error in failed.items()))

    def _begin(self, model: str, conversation: Callable[[], bytes]) -> Call:
        self._watch()
        return self._dispatch.begin(model, conversation)

    async def _ask(self, call: Call, send: Callable[[EngineClient], Awaitable[Reply]]) -> Reply:
        while True:
            with self._dispatch.attempt(call) as replica:
                async with self._dispatch.patience(call, replica):
                    reply = await send(replica.engine)
                replica.health.replies()
                return reply

    async def _possible(self, body: JsonObject) -> JsonObject:
        # Clients send the limit of the largest models (opencode 32,000), and vLLM refuses one beyond its context.
        wanted = body.get("max_tokens")
        if not isinstance(wanted, int) or wanted <= (most := await self.context_length()):
            return body
        return {**body, "max_tokens": most}

    def _context_lengths(self) -> list[int]:
        return [replica.context_length for replica in self._replicas if replica.context_length is not None]

    def _watch(self) -> None:
        # Begun with the first call and not before: tasks belong to the event loop that runs then.
        if not self._watchers:
            for replica in self._replicas:
                watching = replica.watch(self._adapters, self._dispatch.notice)
                self._watchers.append(asyncio.create_task(watching))


def _conversation_of(body: JsonObject) -> bytes:
    """What stands for the conversation of a body of any path: its messages, or the beginning of what it has in their place."""
    if "messages" in body:
        return conversation_of_messages(body["messages"])
    return conversation_of_messages([{"content": repr(body.get("prompt", body.get("input")))[:OPENING_CHARACTERS]}])
