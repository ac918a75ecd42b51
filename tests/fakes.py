"""Stand-ins for the engine and the services, for tests of single ideas. End-to-end tests use the real parts."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.shared.contracts.adapters import AdapterCard, AdapterSet, PromptProfile, ServedRelease
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import LookBack, Standings
from services.shared.contracts.engine import Completion, CompletionRequest, Completions, Scores
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.selection import Selection, SelectionRequest
from services.shared.contracts.tools import Tool, ToolsetRef
from services.shared.contracts.usage import Usage

CHATML = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def toy_renderer() -> PromptRenderer:
    """A renderer with a tokenizer of one token per byte and a few merged ones, as real vocabularies have."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "a"), ("rea", "d"), ("f", "i"), ("l", "e"), ("fi", "le"), ('"', ",")]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    return PromptRenderer(tokenizer, CHATML, {"eos_token": "<|im_end|>"})


class ToyEngine:
    """An engine whose language model is a pseudo-random function of the last tokens of the prompt."""

    def __init__(self, *, vocabulary: int = 400, context: int = 100_000) -> None:
        self.vocabulary = vocabulary
        self.context = context
        self.score_calls: list[tuple[list[list[int]], list[int]]] = []
        self.scored_by: list[str] = []

    def logprobs(self, prompt: Sequence[int]) -> list[float]:
        dice = random.Random(hash(tuple(prompt[-12:])))
        logits = [dice.gauss(0, 3) for _ in range(self.vocabulary)]
        norm = math.log(math.fsum(math.exp(logit) for logit in logits))
        return [logit - norm for logit in logits]

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        self.score_calls.append((prompts, token_ids))
        self.scored_by.append(model)
        rows = [self.logprobs(prompt) for prompt in prompts]
        return Scores(logprobs=[{token: row[token] for token in token_ids} for row in rows])

    async def context_length(self) -> int:
        return self.context

    async def complete(self, request: CompletionRequest) -> Completions:
        raise NotImplementedError

    async def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def stream_chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        raise NotImplementedError


class ScriptedEngine(ToyEngine):
    """An engine that continues prompts with the texts of a script, and chats with one sentence."""

    def __init__(self, *texts: str, finish: str = "stop", context: int = 100_000) -> None:
        super().__init__(context=context)
        self.texts = list(texts)
        self.finish = finish
        self.requests: list[CompletionRequest] = []
        self.chats: list[dict[str, Any]] = []
        self.counted: list[dict[str, Any]] = []

    async def complete(self, request: CompletionRequest) -> Completions:
        self.requests.append(request)
        texts = [self.texts.pop(0) for _ in range(request.n)]
        choices = [Completion(text=text, finish_reason=self.finish) for text in texts]
        return Completions(choices=choices, usage=Usage(prompt_tokens=len(request.prompt), completion_tokens=7 * request.n))

    async def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.chats.append(body)
        message = {"role": "assistant", "content": "It is done.", "tool_calls": [], "reasoning": None}
        choices = [
            {"index": i, "message": message, "finish_reason": "stop", "stop_reason": None} for i in range(body.get("n", 1))
        ]
        return {"id": "x", "choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": 4}}

    async def count_tokens(self, body: dict[str, Any]) -> int:
        self.counted.append(body)
        return len(str(body).split())

    async def stream_chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        self.chats.append(body)
        yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        for word in ("It ", "is ", "done."):
            yield {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": None}]}
        yield {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}


FILES = ToolsetRef(name="files", digest="d" * 64, tools=["write_file", "read_file"])


def served_release(
    number: int = 7,
    *,
    profile: PromptProfile = "compact",
    digest: str = FILES.digest,
    arguments: Sequence[str] = ("read_file",),
    selector: bool = True,
) -> ServedRelease:
    """A release of the toolset `FILES`, with a selector adapter and the argument adapters of those tools."""
    card = AdapterCard(
        toolset="files", role="selector", base_model="base", base_fingerprint="b" * 64, template_hash="c" * 64,
        prompt_profile=profile, tools_digest=digest, rank=8, data_sha256="", seed=1, created_at="", files={"x": "y"},
    )  # fmt: skip
    cards = {"files.select": card} if selector else {}
    cards |= {f"files.{name}": card.model_copy(update={"role": "arguments", "tool": name}) for name in arguments}
    names = {alias: f"{alias}--{number:012x}" for alias in cards}
    adapters = AdapterSet(selector=names.get("files.select"), arguments={name: names[f"files.{name}"] for name in arguments})
    return ServedRelease("files", number, adapters, {names[alias]: card for alias, card in cards.items()})


class FixedReleases:
    """Releases of which the last one serves."""

    def __init__(self, *releases: ServedRelease) -> None:
        self.releases = {(release.toolset, release.number): release for release in releases}

    def current(self, toolset: str) -> ServedRelease | None:
        return next((release for (name, _), release in reversed(self.releases.items()) if name == toolset), None)

    async def numbered(self, toolset: str, number: int) -> ServedRelease:
        if (toolset, number) not in self.releases:
            raise Unavailable(f"release {number} of {toolset} is unknown")
        return self.releases[toolset, number]


class FakeSelector:
    """Selects what it is told to, and remembers what it was asked."""

    def __init__(self, choose: Callable[[SelectionRequest], str | None]) -> None:
        self.choose = choose
        self.release: int | None = None
        self.requests: list[SelectionRequest] = []

    async def select(self, request: SelectionRequest) -> Selection:
        self.requests.append(request)
        tool = self.choose(request)
        usage = Usage(prompt_tokens=100, cached_tokens=64)
        return Selection(
            tool=tool,
            probabilities={tool or "summarize": 0.9},
            margin=0.8,
            valid_mass=1,
            strategy="exact",
            adapter="base",
            release=self.release,
            usage=usage,
        )


class SlowSelector(FakeSelector):
    """Takes its time, and remembers whether it was interrupted."""

    def __init__(self, seconds: float, choose: Callable[[SelectionRequest], str | None] = lambda _: "read_file") -> None:
        super().__init__(choose)
        self.seconds = seconds
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    async def select(self, request: SelectionRequest) -> Selection:
        self.started.set()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().select(request)


class FakeWriter:
    """Writes the arguments it is given."""

    def __init__(self, arguments: str = '{"path":"a"}') -> None:
        self.arguments = arguments
        self.requests: list[ArgumentsRequest] = []
        self.prepared: list[ArgumentsRequest] = []

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        self.requests.append(request)
        usage = Usage(prompt_tokens=110, completion_tokens=9)
        return GeneratedArguments(arguments=self.arguments, attempts=1, adapter="base", usage=usage)

    async def prepare(self, request: ArgumentsRequest) -> Usage:
        self.prepared.append(request)
        return Usage()


class FakeMemory:
    """A call cache that remembers nothing but what it is given, or fails."""

    def __init__(self, standings: Standings | None = None, error: Exception | None = None) -> None:
        self.standings = standings or Standings()
        self.error = error
        self.asked: list[LookBack] = []
        self.cleared: list[str] = []

    async def look_back(self, request: LookBack) -> Standings:
        self.asked.append(request)
        if self.error:
            raise self.error
        return self.standings

    async def clear(self, conversation: str) -> None:
        self.cleared.append(conversation)
        if self.error:
            raise self.error


def tool(name: str, **properties: Any) -> Tool:
    """A tool whose properties are given as keywords: name=schema."""
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return Tool(name=name, description=f"The tool {name}.", parameters=schema)
