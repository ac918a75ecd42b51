"""Selections against engines whose every probability is known."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.selector.labels import NEGLIGIBLE, NODES_PER_CALL
from services.selector.selecting import Sampling, Selector
from services.shared.contracts.adapters import NoReleases, Releases
from services.shared.contracts.engine import Scores
from services.shared.contracts.errors import ContextLengthExceeded, InvalidRequest
from services.shared.contracts.prompts import PromptRenderer, answer_label
from services.shared.contracts.selection import SelectionRequest
from services.shared.contracts.tools import Tool
from tests.fakes import FILES, FixedReleases, ScriptedEngine, ToyEngine, served_release, tool, toy_renderer

pytestmark = pytest.mark.anyio
RENDERER = toy_renderer()
MESSAGES = [{"role": "user", "content": "Read it."}]
VERBS = ("get", "list", "create", "update", "delete", "search", "archive", "export")
NOUNS = ("project", "repository", "workflow", "release")
PARTS = ("issue", "review", "branch", "comment")


def selector(engine: ToyEngine, strategy: str = "exact", max_scored_tokens: int = 128) -> Selector:
    return Selector(
        engine, RENDERER, NoReleases(), base_model="base", strategy=strategy, sampling=Sampling(10, 6),
        max_scored_tokens=max_scored_tokens,
    )  # fmt: skip


def brute_force(engine: ToyEngine, request: SelectionRequest) -> dict[str, float]:
    """Every full name scored on its own, token by token."""
    labels = [t.name for t in request.tools] + [answer_label(request.tools)] * request.may_answer
    prefix = RENDERER.prefix(request.messages, request.tools)
    weights = {}
    for spelled in RENDERER.label_tokens(prefix, labels):
        context, total = list(prefix.head), 0.0
        for token in spelled.ids:
            total += engine.logprobs(context)[token]
            context.append(token)
        weights[spelled.label] = total
    largest = max(weights.values())
    norm = math.fsum(math.exp(w - largest) for w in weights.values())
    return {label: math.exp(w - largest) / norm for label, w in weights.items()}


@settings(max_examples=25)
@given(
    st.lists(st.from_regex(r"(read|file|list)[a-z_]{0,4}", fullmatch=True), min_size=1, max_size=12, unique=True),
    st.integers(3, 128),
)
async def test_the_exact_distribution_is_that_of_scoring_every_full_name(names: list[str], limit: int) -> None:
    engine = ToyEngine()
    request = SelectionRequest(tools=[tool(name) for name in names], messages=MESSAGES)
    selection = await selector(engine, max_scored_tokens=limit).select(request)
    assert math.fsum(selection.probabilities.values()) == pytest.approx(1.0)
    assert selection.probabilities == pytest.approx(brute_force(engine, request), abs=2 * NEGLIGIBLE)


class CountingEngine(ToyEngine):
    """An engine that remembers how many prompts it had at once, at most."""

    now = most = 0

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        self.now += len(prompts)
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= len(prompts)
        return await super().score(model, prompts, token_ids, priority=priority)


async def test_a_vote_on_the_largest_toolset_leaves_the_engine_room_for_others() -> None:
    names = [f"{verb}_{noun}_{part}" for verb in VERBS for noun in NOUNS for part in PARTS]
    engine = CountingEngine()
    request = SelectionRequest(tools=[tool(name) for name in names], messages=MESSAGES)
    selection = await selector(engine).select(request)
    assert len(names) == 128
    assert sum(len(prompts) for prompts, _ in engine.score_calls) > 256, "more than vLLM takes at once"
    assert engine.most <= NODES_PER_CALL
    assert selection.probabilities == pytest.approx(brute_force(engine, request), abs=2 * NEGLIGIBLE)


async def test_withdrawing_a_candidate_leaves_the_prompt_as_it_was() -> None:
    engine = ToyEngine()
    tools = [tool("read_file"), tool("write_file")]
    await selector(engine).select(SelectionRequest(tools=tools, messages=MESSAGES))
    await selector(engine).select(SelectionRequest(tools=tools, messages=MESSAGES, candidates=["read_file"]))
    every, fewer = engine.score_calls[0][0], engine.score_calls[-1][0]
    assert every[0][:80] == fewer[0][:80]


async def test_a_single_candidate_needs_no_engine() -> None:
    engine = ToyEngine()
    request = SelectionRequest(tools=[tool("read_file")], messages=MESSAGES, may_answer=False)
    selection = await selector(engine).select(request)
    assert (selection.tool, selection.margin, engine.score_calls) == ("read_file", 1.0, [])


async def test_a_tool_called_like_the_answer_label_stays_a_tool() -> None:
    engine = ScriptedEngine(*["summarize"] * 10)
    request = SelectionRequest(tools=[tool("summarize"), tool("read_file")], messages=MESSAGES, strategy="sample")
    selection = await selector(engine).select(request)
    assert selection.tool == "summarize"
    assert "summarize_" in selection.probabilities


async def test_sampling_stops_as_soon_as_the_winner_is_certain() -> None:
    engine = ScriptedEngine(*["read_file"] * 10)
    request = SelectionRequest(tools=[tool("read_file"), tool("write_file")], messages=MESSAGES, strategy="sample", seed=7)
    selection = await selector(engine).select(request)
    assert selection.tally == {"read_file": 6}
    assert [r.n for r in engine.requests] == [6]


async def test_an_undecided_vote_draws_the_rest_with_another_seed() -> None:
    engine = ScriptedEngine(*["read_file", "write_file"] * 3, *["write_file"] * 4)
    request = SelectionRequest(tools=[tool("read_file"), tool("write_file")], messages=MESSAGES, strategy="sample", seed=7)
    selection = await selector(engine).select(request)
    assert selection.tally == {"read_file": 3, "write_file": 7}
    assert [(r.n, r.seed) for r in engine.requests] == [(6, 7), (4, 13)]


async def test_when_nothing_parses_the_turn_is_an_answer() -> None:
    engine = ScriptedEngine(*["gibberish"] * 10)
    request = SelectionRequest(tools=[tool("read_file")], messages=MESSAGES, strategy="sample")
    selection = await selector(engine).select(request)
    assert (selection.tool, selection.tally, selection.valid_mass) == (None, {}, 0.0)


async def test_when_nothing_parses_and_a_tool_is_required_scores_decide() -> None:
    engine = ScriptedEngine(*["gibberish"] * 10)
    request = SelectionRequest(
        tools=[tool("read_file"), tool("write_file")], messages=MESSAGES, strategy="sample", may_answer=False
    )
    selection = await selector(engine).select(request)
    assert selection.tool in ("read_file", "write_file")
    assert selection.strategy == "exact"


async def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextLengthExceeded, match="context is 50 tokens"):
        await selector(ToyEngine(context=50)).select(SelectionRequest(tools=[tool("read_file")], messages=MESSAGES))


async def test_an_unknown_candidate_is_named() -> None:
    with pytest.raises(InvalidRequest, match="rm_rf"):
        await selector(ToyEngine()).select(SelectionRequest(tools=[tool("a")], messages=MESSAGES, candidates=["rm_rf"]))


def test_both_roles_read_the_same_prefix(renderer: PromptRenderer) -> None:
    prefix = renderer.prefix(MESSAGES, [tool("read_file", path={"type": "string"})])
    select, write = renderer.name_prompt(prefix), renderer.arguments_prompt(prefix, "read_file")
    assert write[: len(select)] == select


async def test_with_a_tool_result_at_hand_the_threshold_is_silent() -> None:
    asked = SelectionRequest(tools=[tool("read_file"), tool("write_file")], messages=MESSAGES)
    result = {"role": "tool", "tool_call_id": "c", "content": "done"}
    note = {"role": "system", "content": "read_file was called 3 times"}
    answered = asked.model_copy(update={"messages": [*MESSAGES, result, note]})
    asked_again = asked.model_copy(update={"messages": [*MESSAGES, result, *MESSAGES]})
    unsure = Selector(
        ScriptedEngine(*["summarize"] * 30), RENDERER, NoReleases(), base_model="base", strategy="sample",
        sampling=Sampling(10, 10), max_scored_tokens=128, answer_threshold=1.01,
    )  # fmt: skip
    assert (await unsure.select(asked)).tool == "read_file"
    assert (await unsure.select(answered)).tool is None
    assert (await unsure.select(asked_again)).tool == "read_file"


def with_releases(engine: ToyEngine, releases: Releases, threshold: float = 0.0) -> Selector:
    return Selector(
        engine, RENDERER, releases, base_model="base", strategy="exact", sampling=Sampling(), max_scored_tokens=128,
        answer_threshold=threshold,
    )  # fmt: skip


def files_request(*names: str) -> SelectionRequest:
    return SelectionRequest(tools=[tool(name) for name in names], toolset=FILES, messages=MESSAGES)


async def test_the_selector_adapter_of_the_toolset_votes_on_names_alone() -> None:
    engine = ToyEngine()
    release = served_release()
    selection = await with_releases(engine, FixedReleases(release)).select(files_request("read_file", "write_file"))
    assert (selection.adapter, selection.release) == (release.adapters.selector, 7)
    assert set(engine.scored_by) == {release.adapters.selector}
    head = RENDERER.prefix(MESSAGES, [Tool(name=name) for name in FILES.tools], "compact").head
    assert engine.score_calls[0][0][0][: len(head)] == head


async def test_a_caller_that_leaves_tools_out_gets_the_whole_prompt_and_a_vote_among_its_own() -> None:
    engine, whole = ToyEngine(), ToyEngine()
    some = await with_releases(engine, FixedReleases(served_release())).select(files_request("read_file"))
    await with_releases(whole, FixedReleases(served_release())).select(files_request("write_file", "read_file"))
    assert set(some.probabilities) == {"read_file", "summarize"}
    shortest = min(engine.score_calls[0][0], key=len)
    assert shortest == min(whole.score_calls[0][0], key=len)


async def test_an_adapter_that_learned_other_tools_by_heart_does_not_vote() -> None:
    engine = ToyEngine()
    releases = FixedReleases(served_release(digest="e" * 64))
    selection = await with_releases(engine, releases).select(files_request("read_file"))
    assert (selection.adapter, selection.release) == ("base", 7)


async def test_an_adapter_that_is_shown_the_schemas_votes_on_any_version_of_them() -> None:
    releases = FixedReleases(served_release(digest="e" * 64, profile="full"))
    selection = await with_releases(ToyEngine(), releases).select(files_request("read_file"))
    assert selection.adapter == "files.select--000000000007"


async def test_tools_that_nobody_registered_are_of_no_release() -> None:
    request = SelectionRequest(tools=[tool("read_file")], messages=MESSAGES)
    selection = await with_releases(ToyEngine(), FixedReleases(served_release())).select(request)
    assert (selection.adapter, selection.release) == ("base", None)


async def test_the_answer_threshold_is_for_the_untrained_base_model_only() -> None:
    seen = set()
    for number in range(20):
        request = files_request(f"read_with_a_name_that_is_unlikely_to_be_written_{number}")
        trained = await with_releases(ToyEngine(), FixedReleases(served_release()), threshold=1.01).select(request)
        untrained = await with_releases(ToyEngine(), NoReleases(), threshold=1.01).select(request)
        seen.add(trained.tool)
        assert untrained.tool is not None
    assert None in seen
