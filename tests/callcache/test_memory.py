"""What the service answers while its store works, fails and recovers."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from services.callcache.memory import Memory
from services.callcache.metrics import CallCacheMetrics
from services.shared.contracts.calls import Ladder, Standings
from services.shared.contracts.errors import Unavailable
from tests.callcache.calls import DictStore, look_back, made, repeated

pytestmark = pytest.mark.anyio


class Bench:
    """A memory, its store and its metrics."""

    def __init__(self, **limits: int) -> None:
        self.registry = CollectorRegistry()
        self.store = DictStore()
        options = {"max_calls": 1024, **limits}
        self.memory = Memory(self.store, CallCacheMetrics(self.registry), ladder=Ladder(), **options)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"agentflux_callcache_{name}", labels)


async def test_calls_add_up_over_requests_that_each_show_only_the_last():
    bench = Bench()
    steps = []
    for call in repeated(11):
        found = await bench.memory.look_back(look_back([call]))
        assert found.shared
        steps.append(found.standings[0].step if found.standings else "none")
    assert steps == ["none"] * 2 + ["warn"] * 2 + ["withdraw"] * 5 + ["block"] * 2


async def test_the_same_request_sent_again_changes_nothing():
    bench = Bench()
    request = look_back(repeated(4))
    first = await bench.memory.look_back(request)
    assert [await bench.memory.look_back(request) for _ in range(5)] == [first] * 5


async def test_conversations_do_not_see_each_other():
    bench = Bench()
    await bench.memory.look_back(look_back(repeated(9), conversation="mine"))
    assert (await bench.memory.look_back(look_back([made("call_9")], conversation="yours"))).standings == []


async def test_a_cleared_conversation_starts_anew():
    bench = Bench()
    await bench.memory.look_back(look_back(repeated(9)))
    await bench.memory.clear("conversation")
    assert (await bench.memory.look_back(look_back([made("call_9")]))).standings == []


async def test_without_calls_the_store_is_not_asked():
    bench = Bench()
    bench.store.down = True
    assert await bench.memory.look_back(look_back([])) == Standings(standings=[], shared=True)


async def test_while_the_store_is_down_the_request_alone_is_counted():
    bench = Bench()
    await bench.memory.look_back(look_back(repeated(9)))
    bench.store.down = True
    found = await bench.memory.look_back(look_back(repeated(3)))
    assert not found.shared
    assert [(standing.repeats, standing.step) for standing in found.standings] == [(3, "warn")]
    assert bench.metric("store_up") == 0
    assert bench.metric("store_errors_total") == 1

    bench.store.down = False
    assert (await bench.memory.look_back(look_back(repeated(3)))).standings[0].repeats == 9
    assert bench.metric("store_up") == 1


async def test_readiness_says_what_a_missing_store_means():
    bench = Bench()
    assert await bench.memory.ready() is None
    bench.store.down = True
    reason = await bench.memory.ready()
    assert reason == "the store is down; until then repeated calls are counted from each request alone"


async def test_a_clear_that_did_not_happen_is_an_error():
    bench = Bench()
    bench.store.down = True
    with pytest.raises(Unavailable):
        await bench.memory.clear("conversation")


async def test_a_conversation_holds_no_more_than_its_limit():
    bench = Bench(max_calls=20)
    for number in range(50):
        await bench.memory.look_back(look_back([made(f"other_{number}", arguments=f'{{"n":{number}}}'), *repeated(3)]))
        assert len(bench.store.seen["conversation"]) <= 20
    assert (await bench.memory.look_back(look_back([made("call_0")]))).standings[0].repeats == 3


async def test_a_history_longer_than_the_limit_is_counted_whole():
    bench = Bench(max_calls=4)
    assert (await bench.memory.look_back(look_back(repeated(12)))).standings[0].repeats == 12
    assert len(bench.store.seen["conversation"]) == 4


async def test_of_a_history_longer_than_the_limit_the_newest_calls_are_remembered():
    bench = Bench(max_calls=4)
    older, newer = repeated(6), [made(f"newer_{number}", result="hello") for number in range(4)]
    await bench.memory.look_back(look_back([*older, *newer[:3]]))
    assert (await bench.memory.look_back(look_back(newer[3:]))).standings[0].repeats == 4


async def test_metrics_count_hits_misses_and_steps():
    bench = Bench()
    for call in repeated(6):
        await bench.memory.look_back(look_back([call]))
    assert bench.metric("misses_total") == 1
    assert bench.metric("hits_total") == 5
    assert bench.metric("steps_total", step="warn") == 2
    assert bench.metric("steps_total", step="withdraw") == 2
