"""One selection, step by step: render, score or sample, vote."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.selector.labels import LabelTrie, Node, build_trie, next_wave, scoring_calls
from services.selector.voting import Vote, certain_vote, exact_vote, is_decided, overruled, sampled_vote
from services.shared.contracts.adapters import Releases, Serving
from services.shared.contracts.engine import CompletionRequest, Engine
from services.shared.contracts.errors import ContextLengthExceeded, InvalidRequest
from services.shared.contracts.prompts import LabelTokens, Prefix, PromptRenderer, answer_label
from services.shared.contracts.selection import Selection, SelectionRequest, Strategy
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

# Ahead of warm-ups and evaluations, behind the arguments of turns that are already decided.
PRIORITY = 1


@dataclass(frozen=True)
class Sampling:
    """How the `sample` strategy draws: `samples` in all, the first `first_wave` of them at once.

    The rest is drawn only while it could still change the winner, so the result is that of all `samples`.
    """

    samples: int = 10
    first_wave: int = 6


class Selector:
    """Implements the `ToolSelector` Protocol on an engine."""

    def __init__(
        self,
        engine: Engine,
        renderer: PromptRenderer,
        releases: Releases,
        *,
        base_model: str,
        strategy: Strategy,
        sampling: Sampling,
        max_scored_tokens: int,
        answer_threshold: float = 0.0,
        priority: int = PRIORITY,
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._releases = releases
        self._base_model = base_model
        self._strategy = strategy
        self._sampling = sampling
        self._max_scored_tokens = max_scored_tokens
        self._answer_threshold = answer_threshold
        self._priority = priority

    async def select(self, request: SelectionRequest) -> Selection:
        """Decides which tool comes next.

        Raises:
            InvalidRequest: a candidate is not among the tools, or nothing may win.
            ContextLengthExceeded: the conversation does not fit.
        """
        started = time.perf_counter()
        voter = self._voter(request)
        answer = answer_label(voter.tools)
        labels = _labels(request, answer)
        # Tokenising a megabyte takes a second; it must not stop the other requests of this process.
        prefix, spelled = await asyncio.to_thread(self._render, request, voter, labels)
        await self._check_length(prefix, spelled)
        rendered = time.perf_counter()
        strategy = request.strategy or self._strategy
        if len(labels) == 1:
            vote, usage = certain_vote(labels[0]), Usage()
        elif strategy == "sample":
            vote, usage, strategy = await self._sample(voter.model, prefix, spelled, answer, request.seed)
        else:
            vote, usage = await self._score(voter.model, prefix, spelled)
        if voter.model == self._base_model and not _has_results(request.messages):
            # With results at hand the model may well be done; before, the base model's answer has to be sure of itself.
            vote = overruled(vote, answer, self._answer_threshold)
        return Selection(
            tool=None if vote.winner == answer else vote.winner,
            probabilities=vote.probabilities,
            tally=vote.tally,
            margin=vote.margin,
            valid_mass=vote.valid_mass,
            strategy=strategy,
            adapter=voter.model,
            release=voter.release,
            usage=usage,
            timings={"render_s": rendered - started, "vote_s": time.perf_counter() - rendered},
        )

    def _voter(self, request: SelectionRequest) -> Serving:
        release = self._releases.current(request.toolset.name) if request.toolset else None
        if release is None or request.toolset is None:
            return Serving(self._base_model, request.tools)
        adapter = release.selector(request.toolset, request.tools)
        return adapter or Serving(self._base_model, request.tools, release=release.number)

    def _render(self, request: SelectionRequest, voter: Serving, labels: list[str]) -> tuple[Prefix, list[LabelTokens]]:
        prefix = self._renderer.prefix(request.messages, voter.tools, voter.profile)
        return prefix, self._renderer.label_tokens(prefix, labels)

    async def _check_length(self, prefix: Prefix, spelled: Sequence[LabelTokens]) -> None:
        limit = await self._engine.context_length()
        longest = len(prefix.head) + max(len(label.ids) for label in spelled)
        if longest >= limit:
            raise ContextLengthExceeded(
                f"tools and messages are {longest} tokens; this model's context is {limit} tokens. Shorten the conversation "
                "or the tool descriptions, or serve a model with a longer context.",
                param="messages",
            )

    async def _score(self, model: str, prefix: Prefix, spelled: Sequence[LabelTokens]) -> tuple[Vote, Usage]:
        trie = build_trie(spelled)
        logprobs, cached = await self._score_nodes(model, prefix, trie)
        # Nothing that was generated reaches the caller: the cost of a vote is its prompt, read once.
        usage = Usage(prompt_tokens=len(prefix.head) + len(trie.shared), cached_tokens=cached)
        return exact_vote(trie, logprobs), usage

    async def _score_nodes(self, model: str, prefix: Prefix, trie: LabelTrie) -> tuple[dict[Node, dict[int, float]], int]:
        base = [*prefix.head, *trie.shared]
        logprobs: dict[Node, dict[int, float]] = {}
        cached = 0
        for wave in itertools.count():
            if not (nodes := next_wave(trie, logprobs, wave=wave)):
                break
            # One after the other: together they would be as much for the engine as one call of them all.
            for call in scoring_calls(trie, nodes, self._max_scored_tokens):
                prompts = [[*base, *node] for node in call.nodes]
                scores = await self._engine.score(model, prompts, call.token_ids, priority=self._priority)
                if not logprobs:
                    # What later calls find in the cache, this one has put there.
                    cached = scores.usage.cached_tokens
                for node, row in zip(call.nodes, scores.logprobs, strict=True):
                    logprobs.setdefault(node, {}).update(row)
        return logprobs, cached

    async def _sample(
        self, model: str, prefix: Prefix, spelled: Sequence[LabelTokens], answer: str, seed: int | None
    ) -> tuple[Vote, Usage, Strategy]:
        labels = [label.label for label in spelled]
        prompt = self._renderer.name_prompt(prefix)
        samples: list[str | None] = []
        usage = Usage()
        while len(samples) < self._sampling.samples:
            left = self._sampling.samples - len(samples)
            if samples and is_decided(labels, samples, left):
                break
            wave = await self._engine.complete(
                CompletionRequest(
                    model=model,
                    prompt=prompt,
                    n=left if samples else min(left, self._sampling.first_wave),
                    temperature=1.0,
                    seed=None if seed is None else seed + len(samples),
                    max_tokens=max(len(label.ids) for label in spelled),
                    stop=['"'],
                    priority=self._priority,
                )
            )
            samples += [choice.text if choice.finish_reason == "stop" else None for choice in wave.choices]
            usage += wave.usage
        usage = usage.model_copy(update={"prompt_tokens": len(prompt)})
        vote = sampled_vote(labels, samples)
        if vote is not None:
            return vote, usage, "sample"
        if answer in labels:
            return certain_vote(answer, tally={}, valid_mass=0.0), usage, "sample"
        # A tool is required and no sample named one: only scores can still tell the tools apart.
        vote, cost = await self._score(model, prefix, spelled)
        return vote, usage + cost, "exact"


def _has_results(messages: Sequence[JsonObject]) -> bool:
    """Whether a tool has answered since the user last spoke."""
    roles = [message.get("role") for message in messages]
    since = max((index for index, role in enumerate(roles) if role == "user"), default=0)
    return "tool" in roles[since:]


def _labels(request: SelectionRequest, answer: str) -> list[str]:
    names = [tool.name for tool in request.tools]
    candidates = names if request.candidates is None else request.candidates
    if strangers := set(candidates) - set(names):
        raise InvalidRequest(f"candidates {sorted(strangers)} are not among the tools {names}", param="candidates")
    labels = [name for name in names if name in candidates]
    if request.may_answer:
        labels.append(answer)
    if not labels:
        raise InvalidRequest("nothing can be selected: no candidate is left and an answer is not allowed", param="candidates")
    return labels
