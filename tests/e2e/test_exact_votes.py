"""On a real model: the exact vote equals scoring every full name by brute force.

Brute force is the engine's own `prompt_logprobs`: each full name as one prompt, read in one pass from the first token to the
last, without the prefix cache. The vote instead scores single next tokens at the nodes of a trie, from cached prefixes and in
one batch. In float32 the two agree within 1e-3, so what they compute is the same; hence an engine of its own here.

In bfloat16, in which CPUs serve, the same token scored alone and scored in a batch differs by what the CPU's kernels round
differently: a few thousandths of a probability with AVX-512, up to 0.04 with AMX, whoever does the scoring. Transformers alone
differs by as much between bfloat16 and float32.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.local import base_model
from services.selector.selecting import Sampling, Selector
from services.shared.clients.engine import MAX_SCORED_TOKENS, EngineClient
from services.shared.clients.engines import EngineFleet
from services.shared.clients.http import HttpClient
from services.shared.contracts.adapters import NoReleases
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.selection import Selection, SelectionRequest
from services.shared.contracts.tools import Tool
from tests.engine.running import ROOT, RunningEngine, eventually, running_engine

pytestmark = [pytest.mark.real, pytest.mark.anyio, pytest.mark.timeout(600)]
TOLERANCE = 1e-3
MODEL = ROOT / ".run" / "models" / "smollm2-135m-instruct"

VERBS = ("get", "set", "list", "delete", "create", "update", "find", "copy")
NOUNS = (
    "user",
    "file",
    "order",
    "item",
    "note",
    "page",
    "board",
    "task",
    "event",
    "mail",
    "song",
    "room",
    "team",
    "rule",
    "key",
    "job",
)


@dataclass
class Parts:
    """The selector on the real engine, and the same engine without the selector."""

    selector: Selector
    renderer: PromptRenderer
    http: HttpClient
    model: str

    async def select(self, request: SelectionRequest) -> Selection:
        return await self.selector.select(request)

    async def brute_force(self, request: SelectionRequest, labels: Sequence[str]) -> dict[str, float]:
        """The probabilities of `labels` among themselves, each scored as one whole prompt."""
        prefix = self.renderer.prefix(request.messages, request.tools)
        totals: dict[str, float] = {}
        for spelled in self.renderer.label_tokens(prefix, labels):
            body = {
                "model": self.model,
                "prompt": [*prefix.head, *spelled.ids],
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
            }
            reply: Any = await self.http.post("/v1/completions", body)
            rows = reply["choices"][0]["prompt_logprobs"][len(prefix.head) :]
            totals[spelled.label] = math.fsum(row[str(token)]["logprob"] for row, token in zip(rows, spelled.ids, strict=True))
        return normalised(totals)

    async def token_by_token(self, request: SelectionRequest, labels: Sequence[str]) -> dict[str, float]:
        """The same, but every token of every name is a request of its own."""
        prefix = self.renderer.prefix(request.messages, request.tools)
        engine, totals = EngineClient(self.http), {}
        for spelled in self.renderer.label_tokens(prefix, labels):
            totals[spelled.label] = 0.0
            for depth, token in enumerate(spelled.ids):
                scores = await engine.score(self.model, [[*prefix.head, *spelled.ids[:depth]]], [token])
                totals[spelled.label] += scores.logprobs[0][token]
        return normalised(totals)


def normalised(totals: dict[str, float]) -> dict[str, float]:
    """Log-probabilities as probabilities that sum to 1."""
    largest = max(totals.values())
    norm = math.fsum(math.exp(total - largest) for total in totals.values())
    return {label: math.exp(total - largest) / norm for label, total in totals.items()}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    base_model.prepare(MODEL)
    # vLLM counts the last of a flag that is given twice.
    with running_engine(tmp_path_factory.mktemp("engine"), MODEL, AGENTFLUX_ENGINE_EXTRA_ARGS="--dtype float32") as engine:
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=240)
        yield engine


@pytest.fixture
async def parts(engine: RunningEngine) -> AsyncIterator[Parts]:
    renderer = PromptRenderer.load(MODEL)
    http = HttpClient(engine.url, service="engine", timeout_s=120)
    fleet = EngineFleet.connect(engine.url, timeout_s=120, role="selector", base_model=MODEL.name)
    selector = Selector(
        fleet,
        renderer,
        NoReleases(),
        base_model=MODEL.name,
        strategy="exact",
        sampling=Sampling(),
        max_scored_tokens=MAX_SCORED_TOKENS,
    )
    yield Parts(selector, renderer, http, MODEL.name)
    await fleet.aclose()
    await http.aclose()


def request_for(names: Sequence[str], text: str) -> SelectionRequest:
    return SelectionRequest(tools=[Tool(name=name) for name in names], messages=[{"role": "user", "content": text}])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["read_file", "read_file_v2", "read_file_v2_raw", "read"], "Read the notes"),
        (["read_file", "read_file_v2"], "How is the weather in Rome?"),
        (["get_weather"], "How is the weather in Rome?"),
        (["list_directory", "list_directory_with_sizes", "search_files", "move_file"], "Read the notes"),
        (["größe", "日本語", 'quo"ted', "back\\slash", "summarize"], "Read the notes"),
    ],
    ids=["names that begin others", "two of them", "a single tool", "a usual list", "names to be escaped"],
)
async def test_the_distribution_is_that_of_every_full_name(parts: Parts, names: list[str], text: str) -> None:
    request = request_for(names, text)
    selection = await parts.select(request)
    labels = [*names, answer_label(request.tools)]
    expected = await parts.brute_force(request, labels)
    assert math.fsum(selection.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert selection.probabilities == pytest.approx(expected, abs=TOLERANCE)


async def test_a_hundred_and_twenty_eight_tools(parts: Parts) -> None:
    names = [f"{verb}_{noun}" for verb in VERBS for noun in NOUNS]
    request = request_for(names, "Delete the song")
    selection = await parts.select(request)
    assert len(selection.probabilities) == 129
    assert math.fsum(selection.probabilities.values()) == pytest.approx(1, abs=1e-9)
    # Scoring 129 names one by one takes an hour here, so some stand for all, relative to each other.
    ranked = sorted(selection.probabilities, key=lambda label: -selection.probabilities[label])
    labels = [ranked[0], ranked[1], ranked[60]]
    among = math.fsum(selection.probabilities[label] for label in labels)
    expected = await parts.token_by_token(request, labels)
    assert {label: selection.probabilities[label] / among for label in labels} == pytest.approx(expected, abs=TOLERANCE)


async def test_many_samples_approach_the_exact_distribution(parts: Parts) -> None:
    request = request_for(["get_weather", "get_time"], "Is it raining in London right now?")
    exact = await parts.select(request)
    drawn = Selector(
        parts.selector._engine,
        parts.renderer,
        NoReleases(),
        base_model=parts.model,
        strategy="sample",
        sampling=Sampling(128, 128),
        max_scored_tokens=128,
    )
    sampled = await drawn.select(request.model_copy(update={"seed": 7}))
    if sampled.tally and sum(sampled.tally.values()) >= 20:
        winner = max(exact.probabilities, key=lambda label: exact.probabilities[label])
        spread = 4 * math.sqrt(0.25 / sum(sampled.tally.values()))
        assert sampled.probabilities[winner] == pytest.approx(exact.probabilities[winner], abs=spread)
    else:
        # An untrained model seldom names a tool at all; the share that does is the exact vote's valid mass.
        assert exact.valid_mass < 0.35
