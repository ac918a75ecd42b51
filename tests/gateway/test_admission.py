"""Who gets the next place, who is refused, and that no place is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from services.gateway.admission import AGED_S, Admission, Refused

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


crowds: list[Crowd] = []


@pytest.fixture(autouse=True)
async def over() -> AsyncIterator[None]:
    yield
    while crowds:
        await crowds.pop().leave()


class Crowd:
    """Turns that are started by name and ended by name; `began` has the names in the order in which they got places."""

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.admission = Admission(**{"max_turns": 1, "max_queue": 100, "queue_timeout_s": 1000, **limits}, clock=self.clock)  # type: ignore[arg-type]
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        crowds.append(self)

    async def leave(self) -> None:
        """Nobody waits on when the test is over: the next one has the same event loop."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def start(self, name: str, caller: str = "a", *, continues: bool = False, time_left_s: float = 1000) -> None:
        async def turn() -> None:
            async with self.admission.place(caller, continues=continues, time_left_s=time_left_s):
                self.began.append(name)
                await self.ends[name].wait()

        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(turn())
        await settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await settle()

    async def refusal(self, name: str) -> Refused:
        await settle()
        assert self.tasks[name].done()
        error = self.tasks[name].exception()
        assert isinstance(error, Refused)
        return error

    async def drain(self) -> list[str]:
        """Ends turns in the order in which they began, until nothing is left."""
        done: list[str] = []
        while len(done) < len(self.began):
            name = self.began[len(done)]
            await self.end(name)
            done.append(name)
        return done


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_turns_run_and_the_others_wait_in_order():
    crowd = Crowd(max_turns=2)
    for name in "1234":
        await crowd.start(name)
    assert crowd.began == ["1", "2"]
    assert (crowd.admission.running, crowd.admission.waiting) == (2, 2)
    assert await crowd.drain() == list("1234")
    assert (crowd.admission.running, crowd.admission.waiting) == (0, 0)


async def test_a_running_tool_loop_comes_before_a_new_conversation():
    crowd = Crowd()
    await crowd.start("first")
    await crowd.start("new")
    await crowd.start("loop", continues=True)
    assert await crowd.drain() == ["first", "loop", "new"]


async def test_a_new_conversation_that_waited_long_is_served_while_loops_keep_coming():
    crowd = Crowd()
    await crowd.start("first")
    await crowd.start("new")
    crowd.clock.now = AGED_S + 1
    await crowd.start("loop", continues=True)
    assert await crowd.drain() == ["first", "new", "loop"]


async def test_callers_share_the_places_whoever_sends_more():
    crowd = Crowd(max_turns=4)
    for number in range(8):
        await crowd.start(f"greedy{number}", "greedy")
    for number in range(3):
        await crowd.start(f"modest{number}", "modest")
    for number in range(3):
        await crowd.end(f"greedy{number}")
    # Of four places the modest caller has two as soon as two came free, and the third goes to whoever waited longest.
    assert crowd.began[4:] == ["modest0", "modest1", "greedy4"]
    await crowd.drain()


async def test_a_full_queue_refuses_the_newcomer_with_a_time_to_come_back():
    crowd = Crowd(max_queue=1)
    for name in ("runs", "waits", "refused"):
        await crowd.start(name)
    error = await crowd.refusal("refused")
    assert (error.status, error.code, error.reason) == (503, "overloaded", "full")
    assert error.retry_after is not None
    assert 1 <= error.retry_after <= 120
    assert await crowd.drain() == ["runs", "waits"]


async def test_a_full_queue_makes_room_for_a_running_loop():
    crowd = Crowd(max_queue=2)
    for name in ("runs", "older", "younger"):
        await crowd.start(name)
    await crowd.start("loop", continues=True)
    assert (await crowd.refusal("younger")).reason == "full"
    assert await crowd.drain() == ["runs", "loop", "older"]


async def test_a_full_queue_makes_room_for_the_caller_with_less_in_it():
    crowd = Crowd(max_queue=3)
    for number in range(4):
        await crowd.start(f"greedy{number}", "greedy")
    await crowd.start("modest", "modest")
    assert (await crowd.refusal("greedy3")).reason == "full"
    assert await crowd.drain() == ["greedy0", "greedy1", "greedy2", "modest"]


async def test_what_would_begin_too_late_is_refused_at_once():
    crowd = Crowd(queue_timeout_s=25)
    await crowd.start("measured")
    crowd.clock.now = 10
    await crowd.end("measured")  # turns take 10 s
    for name in ("runs", "after 10 s", "after 20 s"):
        await crowd.start(name)
    await crowd.start("after 30 s")
    error = await crowd.refusal("after 30 s")
    assert (error.reason, error.retry_after) == ("too_late", 5.0)
    assert "about 30 s" in error.message


async def test_what_could_not_end_before_its_deadline_is_refused_at_once():
    crowd = Crowd()
    await crowd.start("measured")
    crowd.clock.now = 10
    await crowd.end("measured")
    await crowd.start("runs")
    await crowd.start("ends in 20 s", time_left_s=21)
    await crowd.start("ends in 30 s", time_left_s=29)
    assert (await crowd.refusal("ends in 30 s")).reason == "too_late"
    assert await crowd.drain() == ["measured", "runs", "ends in 20 s"]


async def test_a_running_loop_is_not_refused_for_the_new_conversations_that_wait():
    crowd = Crowd(queue_timeout_s=25)
    await crowd.start("measured")
    crowd.clock.now = 10
    await crowd.end("measured")
    for name in ("runs", "new1", "new2"):
        await crowd.start(name)
    await crowd.start("loop", continues=True)
    assert await crowd.drain() == ["measured", "runs", "loop", "new1", "new2"]


async def test_waiting_ends_in_time():
    crowd = Crowd(queue_timeout_s=0.01)
    await crowd.start("runs")
    await crowd.start("waits")
    await asyncio.wait({crowd.tasks["waits"]})
    assert (await crowd.refusal("waits")).reason == "waited_too_long"
    assert crowd.admission.waiting == 0


async def test_who_leaves_while_waiting_leaves_at_once():
    crowd = Crowd()
    for name in ("runs", "leaves", "stays"):
        await crowd.start(name)
    crowd.tasks["leaves"].cancel()
    await settle()
    assert crowd.admission.waiting == 1
    assert await crowd.drain() == ["runs", "stays"]


async def test_a_place_that_comes_at_the_moment_of_leaving_goes_to_the_next_one():
    crowd = Crowd()
    for name in ("runs", "leaves", "next"):
        await crowd.start(name)
    crowd.ends["runs"].set()
    await asyncio.sleep(0)  # "runs" has ended and given its place away, and "leaves" has not noticed yet
    assert crowd.admission.running == 1
    crowd.tasks["leaves"].cancel()
    await settle()
    assert crowd.began == ["runs", "next"]
    await crowd.end("next")
    assert crowd.admission.running == 0


async def test_a_place_is_given_back_whatever_happens_in_it():
    admission = Admission(max_turns=1)
    with pytest.raises(RuntimeError):
        async with admission.place("a", continues=False, time_left_s=10):
            raise RuntimeError
    assert admission.running == 0


async def test_a_turn_that_is_cancelled_as_its_place_comes_takes_none():
    admission = Admission(max_turns=1)
    async with admission.place("a", continues=False, time_left_s=10):
        leaving = asyncio.create_task(admission.place("b", continues=False, time_left_s=10).__aenter__())
        await asyncio.sleep(0)
        assert admission.waiting == 1
        # It wakes only when the place is free already.
        leaving.cancel()
    assert admission.running == 0
    assert isinstance((await asyncio.gather(leaving, return_exceptions=True))[0], asyncio.CancelledError)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_turn_that_is_cancelled_as_it_is_refused_harms_nobody():
    admission = Admission(max_turns=1, max_queue=1)
    first = admission.place("a", continues=False, time_left_s=10)
    await first.__aenter__()
    leaving = asyncio.create_task(admission.place("b", continues=False, time_left_s=10).__aenter__())
    await asyncio.sleep(0)
    ending = asyncio.create_task(first.__aexit__(None, None, None))
    leaving.cancel()
    # Entered here and not in a task of its own, which would begin when the other one is gone.
    async with admission.place("c", continues=True, time_left_s=10):
        assert (admission.running, admission.waiting) == (1, 0)
    await asyncio.gather(leaving, ending, return_exceptions=True)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_no_place_is_lost_or_given_twice_in_a_thousand_random_turns():
    import random

    dice = random.Random(7)
    admission = Admission(max_turns=5, max_queue=20)
    most = 0

    async def turn() -> None:
        nonlocal most
        async with admission.place(dice.choice("abc"), continues=dice.random() < 0.5, time_left_s=dice.choice((0.001, 10))):
            most = max(most, admission.running)
            await asyncio.sleep(dice.random() * 0.01)

    tasks = []
    for _ in range(1000):
        tasks.append(asyncio.create_task(turn()))
        if dice.random() < 0.3:
            dice.choice(tasks).cancel()
        await asyncio.sleep(dice.random() * 0.0003)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 5
    assert (admission.running, admission.waiting) == (0, 0)
    assert {type(outcome) for outcome in outcomes} <= {type(None), Refused, asyncio.CancelledError}
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await asyncio.wait_for(stack.enter_async_context(admission.place("a", continues=False, time_left_s=10)), 1)
