"""A candidate votes beside the adapter that serves: it is counted, bounded, and heard by nobody."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from services.selector.selecting import Sampling, Selector
from services.selector.shadow import MOST_AT_ONCE, Candidate, Shadow
from services.shared.contracts.engine import BACKGROUND_PRIORITY
from services.shared.contracts.errors import EngineUnavailable
from services.shared.contracts.selection import Selection, SelectionRequest
from tests.fakes import FILES, FakeSelector, served_release, tool
from tests.selector.test_selecting import RENDERER, ToyEngine

pytestmark = pytest.mark.anyio

REQUEST = SelectionRequest(
    tools=[tool("read_file"), tool("write_file")], toolset=FILES, messages=[{"role": "user", "content": "Read a."}]
)


def selected(name: str | None, adapter: str = "files.select--000000000000") -> Selection:
    return Selection(
        tool=name, probabilities={}, tally=None, margin=1, valid_mass=1, strategy="exact", adapter=adapter, usage={}, timings={}
    )


class Votes(FakeSelector):
    """Answers with one selection, or an error, when it is let."""

    def __init__(self, said: Selection | Exception) -> None:
        super().__init__(lambda request: None)
        self.said = said
        self.may = asyncio.Event()
        self.asked = 0

    async def select(self, request: SelectionRequest) -> Selection:
        self.asked += 1
        await self.may.wait()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def shadow(votes: Votes, *, share: float = 1.0, chance: float = 0.5) -> tuple[Shadow, Counter[str]]:
    counted: Counter[str] = Counter()
    made = Shadow(
        votes,
        toolset="files",
        adapter="files.select--000000000000",
        share=share,
        count=lambda outcome: counted.update([outcome]),
        chance=lambda: chance,
    )
    return made, counted


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (selected("read_file"), "agreed"),
        (selected(None), "differed"),
        (selected("read_file", adapter="base"), "unfit"),
        (EngineUnavailable("down"), "failed"),
    ],
)
async def test_what_the_candidate_would_have_done_is_counted(said: Selection | Exception, outcome: str) -> None:
    votes = Votes(said)
    votes.may.set()
    made, counted = shadow(votes)
    made.consider(REQUEST, selected("read_file"))
    async with asyncio.timeout(5):
        while not counted:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert counted == {outcome: 1}


async def test_only_its_share_of_its_own_toolset_is_repeated() -> None:
    votes = Votes(selected("read_file"))
    made, _ = shadow(votes, share=0.4, chance=0.4)
    made.consider(REQUEST, selected("read_file"))
    made, _ = shadow(votes)
    made.consider(REQUEST.model_copy(update={"toolset": None}), selected("read_file"))
    made.consider(REQUEST.model_copy(update={"toolset": FILES.model_copy(update={"name": "mail"})}), selected("read_file"))
    await asyncio.sleep(0)
    assert votes.asked == 0


async def test_a_candidate_that_falls_behind_is_left_out() -> None:
    votes = Votes(selected("read_file"))
    made, counted = shadow(votes)
    for _ in range(MOST_AT_ONCE + 3):
        made.consider(REQUEST, selected("read_file"))
    assert counted == {"skipped": 3}
    await asyncio.sleep(0)
    assert votes.asked == MOST_AT_ONCE
    await made.aclose()
    assert counted == {"skipped": 3}


async def test_the_candidates_own_adapter_votes_behind_everything_else() -> None:
    engine, release = ToyEngine(), served_release()
    candidate = Selector(
        engine, RENDERER, Candidate(release), base_model="base", strategy="exact", sampling=Sampling(), max_scored_tokens=128,
        priority=BACKGROUND_PRIORITY,
    )  # fmt: skip
    selection = await candidate.select(REQUEST)
    assert selection.adapter == release.adapters.selector
    assert set(engine.scored_by) == {release.adapters.selector}
