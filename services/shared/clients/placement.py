"""Which engine serves which request: where its adapter and its conversation's KV blocks are, unless that engine has its fill.

Rendezvous hashing (Thaler and Ravishankar, 1998), so that every client of the same engines decides nearly alike without speaking
to the others, and an engine that leaves moves only what it had. Loads are bounded (Mirrokni et al., arXiv 1608.01350) twice:
slowly, when adapters get their homes, and for each request, by what is in flight.

An adapter has few homes, because LoRA slots are scarce and vLLM never shares KV blocks between adapters: as many as its share of
the requests can fill. Among them the conversation's hash chooses, so that the turns of one conversation meet, and conversations
spread where one toolset has all the traffic. The base model is at home everywhere.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.tools import JsonObject

# An engine has at most this many times the mean of the requests in flight.
BOUND = 1.25
# Up to so many requests are one batch to an engine and no load: spreading them would only read one prompt several times.
BATCH = 4
# The share of the traffic whose homes are on one engine is at most this many times the mean.
HOME_BOUND = 1.1

# Shares are of the last one to two windows of so many requests; at the start as many others are presumed as PRESUMED says.
WINDOW = 1024
PRESUMED = 64
# Requests after which the homes follow the shares.
REFRESH = 256

# Tokens that stand for a conversation in a prompt that has no turns.
OPENING_TOKENS = 256


@dataclass(frozen=True)
class Homes:
    """The engines of one adapter: `near` are its homes, `rest` are the others in the order in which they help out."""

    near: list[str]
    rest: list[str]


class Placement:
    """Places requests on `engines`, and learns from them which adapters are popular."""

    def __init__(self, engines: Sequence[str]) -> None:
        self._engines = engines
        self._recent: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._homes: dict[str, Homes] = {}

    def place(self, loads: Mapping[str, int], model: str, conversation: bytes) -> str:
        """The engine for a request, of those in `loads` (requests in flight by engine that may be asked; not empty)."""
        homes = self._homes_of(model)
        wanted = ranked(homes.near, conversation) + homes.rest
        bound = load_bound(sum(loads.values()) + 1, len(loads))
        return next(engine for engine in wanted if engine in loads and loads[engine] < bound)

    def _homes_of(self, model: str) -> Homes:
        is_adapter = ADAPTER_NAME.fullmatch(model) is not None
        if self._recent.total() >= WINDOW:
            self._before, self._recent = self._recent, Counter()
        self._recent[model if is_adapter else ""] += 1
        if not is_adapter:
            return Homes(list(self._engines), [])
        if model not in self._homes or self._recent.total() % REFRESH == 0:
            self._homes = homes_by_share(self._shares(), self._engines)
        return self._homes[model]

    def _shares(self) -> dict[str, float]:
        counts = self._before + self._recent
        total = counts.total() + PRESUMED
        return {model: count / total for model, count in counts.items() if model}


def homes_by_share(shares: Mapping[str, float], engines: Sequence[str]) -> dict[str, Homes]:
    """The homes of each adapter, given its share of all requests: of those it prefers, the ones that have room.

    An engine has room while it is home to no more adapters and no more of the traffic than its part. Adapters are served in the
    order of their hashes, so that a share which moves a little moves few of them.
    """
    wanted = {model: math.ceil(share * len(engines)) for model, share in shares.items()}
    most_adapters = math.ceil(sum(wanted.values()) / len(engines))
    most_traffic = HOME_BOUND * sum(shares.values()) / len(engines)
    adapters, traffic = Counter[str](), dict.fromkeys(engines, 0.0)
    homes = {}
    for model in sorted(shares, key=lambda model: _weight(b"", model)):
        portion = shares[model] / wanted[model]
        preferred = ranked(engines, model.encode())
        # Where nobody has room the adapter lives where it would like to: the sort is stable.
        preferred.sort(key=lambda engine: adapters[engine] >= most_adapters or traffic[engine] + portion > most_traffic)
        homes[model] = Homes(preferred[: wanted[model]], preferred[wanted[model] :])
        for engine in homes[model].near:
            adapters[engine] += 1
            traffic[engine] += portion
    return homes


def ranked(engines: Iterable[str], key: bytes) -> list[str]:
    """The engines by their rendezvous weight for `key`, the heaviest first."""
    return sorted(engines, key=lambda engine: _weight(key, engine))


def load_bound(requests: int, engines: int) -> int:
    """How many of `requests` in flight one of `engines` may have at most."""
    return max(BATCH, math.ceil(BOUND * requests / engines))


def _weight(key: bytes, name: str) -> bytes:
    return blake2b(key + b"\0" + name.encode(), digest_size=8).digest()


def conversation_of_prompt(prompt: Sequence[int]) -> bytes:
    """What the prompts (token ids) of one conversation have in common, and no other conversation's: the turn of the system, with
    the tools, and the turn after it.

    Nothing shorter tells conversations with one toolset apart, and nothing longer is there from the first request on. Chat
    templates open every turn with one special token, which is the first of a prompt, or the second where the first is a BOS.
    """
    end = _third_turn(prompt, 0) or _third_turn(prompt, 1) or OPENING_TOKENS
    return blake2b(array("q", prompt[:end]).tobytes(), digest_size=16).digest()


def _third_turn(prompt: Sequence[int], first: int) -> int | None:
    try:
        second = prompt.index(prompt[first], first + 1)
        return prompt.index(prompt[first], second + 1)
    except (IndexError, ValueError):
        return None


def conversation_of_messages(messages: Sequence[JsonObject]) -> bytes:
    """The same of a chat: all messages up to the first one of a user."""
    asked = next((index for index, message in enumerate(messages) if message.get("role") == "user"), len(messages))
    return blake2b(repr(messages[: asked + 1]).encode("utf-8", "replace"), digest_size=16).digest()
