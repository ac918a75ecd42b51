"""Several engines as one, on engines that are as ill as can be."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.shared.clients.engine import EngineClient
from services.shared.clients.engines import EngineFleet
from services.shared.clients.health import INTERVAL_S, LOOK_TIMEOUT_S, PATIENCE, SHORTEST_REST_S
from services.shared.clients.http import HttpClient
from services.shared.contracts.engine import CompletionRequest
from services.shared.contracts.errors import (
    AdapterRefused,
    AgentFluxError,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
)
from tests.shared.clients.fake_engine import FakeEngine, engine_process, engines

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

DEAD = "http://127.0.0.1:1"
SELECTOR = "filesystem.select--0123456789ab"
# How late a loaded machine may be.
SLACK_S = 2.0


@contextlib.asynccontextmanager
async def fleet_of(*members: FakeEngine | str, timeout_s: float = 10, **options: Any) -> AsyncIterator[EngineFleet]:
    urls = ",".join(member if isinstance(member, str) else member.url for member in members)
    fleet = EngineFleet.connect(urls, timeout_s=timeout_s, role="selector", base_model="base", **options)
    try:
        yield fleet
    finally:
        await fleet.aclose()


def conversation(number: int) -> CompletionRequest:
    """A request of a conversation of its own."""
    return CompletionRequest(model="base", prompt=[1, 5, 1, 1000 + number, 1, 7], max_tokens=8)


def body(number: int = 0) -> dict[str, Any]:
    return {"model": "base", "messages": [{"role": "user", "content": f"Question {number}"}]}


def metric(fleet: EngineFleet, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(fleet.metrics)
    return registry.get_sample_value(name, labels)


async def eventually(condition: Any, *, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  (the conditions are what other tasks do)
            await asyncio.sleep(0.01)


def is_up(fleet: EngineFleet, engine: FakeEngine | str) -> bool:
    url = engine if isinstance(engine, str) else engine.url
    return metric(fleet, "agentflux_engine_up", engine=url) == 1


# --- Placement ---


async def test_the_turns_of_a_conversation_meet_and_conversations_spread():
    async with engines(3) as fakes, fleet_of(*fakes) as fleet:
        for number in [*range(30), *range(30)]:
            await fleet.complete(conversation(number))
        homes = [{request["prompt"][3] for request in fake.requests} for fake in fakes]
        assert all(homes)
        assert sum(map(len, homes)) == 30


async def test_scores_and_arguments_of_one_conversation_meet_on_the_base_model():
    async with engines(3) as fakes, fleet_of(*fakes) as fleet:
        prompt = [1, 5, 1, 6, 1, 7]
        await fleet.score("base", [[*prompt, 8], [*prompt, 9]], [10, 11])
        await fleet.complete(CompletionRequest(model="base", prompt=[*prompt, 8, 10, 12], max_tokens=8))
        assert sorted(len(fake.requests) for fake in fakes) == [0, 0, 2]


async def test_a_burst_of_one_conversation_is_spread_by_the_load_bound():
    async with engines(3, delay_s=0.2) as fakes, fleet_of(*fakes) as fleet:
        await asyncio.gather(*(fleet.complete(conversation(0)) for _ in range(24)))
        assert max(len(fake.requests) for fake in fakes) <= 10


async def test_urls_may_have_blanks_and_repetitions_and_none_is_an_error_that_says_what_to_set():
    async with engines(1) as (fake,), fleet_of(f" {fake.url} ,, {fake.url}") as fleet:
        assert (await fleet.complete(conversation(0))).choices[0].text == "{}"
        await eventually(lambda: is_up(fleet, fake))
    with pytest.raises(ValueError, match="engine_url names no engine"):
        EngineFleet.connect(" , ", timeout_s=1, role="selector", base_model="base")


# --- Engines that die ---


async def test_a_dead_engine_costs_no_request_and_is_down_after_the_first_look():
    async with engines(1) as (fake,), fleet_of(fake, DEAD) as fleet:
        for number in range(20):
            await fleet.complete(conversation(number))
        assert len(fake.requests) == 20
        assert not is_up(fleet, DEAD)
        assert metric(fleet, "agentflux_engine_ejections_total", engine=DEAD) == 1
        assert await fleet.ready() is None


async def test_an_idle_fleet_finds_a_dead_engine_by_itself():
    async with engines(2) as fakes, fleet_of(*fakes) as fleet:
        assert await fleet.ready() is None
        await fakes[0].stop()
        await eventually(lambda: not is_up(fleet, fakes[0]), within_s=INTERVAL_S + SLACK_S)


async def test_a_frozen_engine_is_found_within_three_seconds_and_its_requests_move_on():
    async with engines(2, delay_s=0.01) as fakes, fleet_of(*fakes) as fleet:
        for number in range(40):
            await fleet.complete(conversation(number))
        hit = [request["prompt"][3] - 1000 for request in fakes[0].requests]
        fakes[0].mood = "frozen"
        started = time.monotonic()
        await asyncio.gather(*(fleet.complete(conversation(number)) for number in hit[:4]))
        assert time.monotonic() - started < INTERVAL_S + PATIENCE * LOOK_TIMEOUT_S + SLACK_S
        assert not is_up(fleet, fakes[0])
        assert metric(fleet, "agentflux_engine_retries_total", reason="silent") == len(fakes[0].requests) - len(hit) == 4


async def test_a_killed_process_under_load_costs_no_request():
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(engine_process(delay_s=0.02)) for _ in range(3)]
        async with fleet_of(*(url for url, _ in processes)) as fleet:
            done, gone_after = 0, None

            async def converse(worker: int) -> None:
                nonlocal done
                for turn in range(25):
                    await fleet.complete(conversation(100 * worker + turn % 5))
                    done += 1

            async def kill() -> None:
                nonlocal gone_after
                await eventually(lambda: done > 120)
                url, victim = processes[0]
                victim.kill()
                killed = time.monotonic()
                await eventually(lambda: not is_up(fleet, url))
                gone_after = time.monotonic() - killed

            await asyncio.gather(kill(), *(converse(worker) for worker in range(12)))
            assert done == 300
            assert gone_after is not None
            assert gone_after < 6  # Three seconds are promised; a machine that runs a whole test suite may take longer to notice.
            second_tries = [metric(fleet, "agentflux_engine_retries_total", reason=reason) or 0 for reason in ("refused", "lost")]
            assert sum(second_tries) > 0
            assert metric(fleet, "agentflux_engine_requests_total", adapter="base", role="selector", outcome="ok") == 300


async def test_all_gone_is_engine_unavailable_with_a_time_to_come_back():
    async with fleet_of(DEAD, "http://127.0.0.1:2") as fleet:
        for request in (fleet.complete(conversation(0)), fleet.chat(body()), fleet.context_length(), fleet.warm("base", [1])):
            with pytest.raises(EngineUnavailable) as raised:
                await request
            assert raised.value.retry_after
        assert "127.0.0.1:1" in (await fleet.ready() or "")


async def test_the_last_engine_is_asked_although_it_was_seen_dead():
    fake = FakeEngine()
    await fake.start()
    async with fleet_of(fake) as fleet:
        assert await fleet.context_length() == 4096
        await fake.stop()
        with pytest.raises(EngineUnavailable):
            await fleet.complete(conversation(0))
        fake.context_length = 8192
        await fake.start()
        await fleet.complete(conversation(0))
        assert await fleet.context_length() == 8192
    await fake.stop()


# --- Coming back ---


async def test_an_engine_comes_back_warm_by_a_trial():
    async with engines(2) as (fake, other), fleet_of(fake, other, adapters=lambda: {SELECTOR: [1, 2, 3], "base": [4]}) as fleet:
        await fleet.ready()
        await fake.stop()
        await eventually(lambda: not is_up(fleet, fake))
        fake.requests.clear()
        await fake.start()
        await eventually(lambda: is_up(fleet, fake), within_s=SHORTEST_REST_S + INTERVAL_S + SLACK_S)
        assert fake.models() == [SELECTOR, "base"]
        assert [(r["prompt"], r["max_tokens"], r["priority"]) for r in fake.requests] == [([1, 2, 3], 1, 10), ([4], 1, 10)]
        for number in range(20):
            await fleet.complete(conversation(number))
        assert len(fake.requests) > 2


async def test_an_engine_that_cannot_be_warmed_stays_out():
    async with engines(2) as (fake, other), fleet_of(fake, other, adapters=lambda: {SELECTOR: [1, 2, 3]}) as fleet:
        await fleet.ready()
        await fake.stop()
        await eventually(lambda: not is_up(fleet, fake))
        fake.mood = "busy"
        await fake.start()
        await eventually(lambda: fake.requests)
        await asyncio.sleep(2 * INTERVAL_S)
        assert not is_up(fleet, fake)
        for number in range(10):
            await fleet.complete(conversation(number))
        assert set(fake.models()) == {SELECTOR}


async def test_an_engine_returns_without_an_adapter_that_it_refuses():
    async with engines(2) as (fake, other), fleet_of(fake, other, adapters=lambda: {SELECTOR: [1, 2, 3], "base": [4]}) as fleet:
        await fleet.ready()
        await fake.stop()
        await eventually(lambda: not is_up(fleet, fake))
        fake.mood = "strict"
        await fake.start()
        await eventually(lambda: is_up(fleet, fake), within_s=SHORTEST_REST_S + INTERVAL_S + SLACK_S)
        assert fake.models() == [SELECTOR, "base"]


async def test_warming_reaches_every_engine_that_lives_and_names_those_that_fail():
    async with engines(3) as fakes, fleet_of(*fakes, DEAD) as fleet:
        assert await fleet.ready() is None
        await eventually(lambda: not is_up(fleet, DEAD))
        await fleet.warm("base", [1])
        fakes[1].mood = fakes[2].mood = "busy"
        with pytest.raises(EngineUnavailable, match="queue is full") as raised:
            await fleet.warm(SELECTOR, [1, 2, 3])
        assert [fake.models() for fake in fakes] == [["base", SELECTOR]] * 3
        assert [fake.url in raised.value.message for fake in fakes] == [False, True, True]


async def test_an_adapter_that_an_engine_refuses_is_a_refusal_whatever_ails_the_others():
    async with engines(3) as fakes, fleet_of(*fakes) as fleet:
        for mood, reason in (("strict", "rank"), ("bare", "does not exist")):
            fakes[0].mood, fakes[1].mood, fakes[2].mood = "drops", mood, "busy"
            with pytest.raises(InvalidRequest, match=reason):
                await fleet.warm(SELECTOR, [1])


# --- Second tries ---


@pytest.mark.parametrize("mood", ["busy", "drops", "breaks"])
async def test_a_failed_try_is_repeated_on_another_engine(mood):
    async with engines(2) as fakes, fleet_of(*fakes) as fleet:
        for number in range(20):
            await fleet.complete(conversation(number))
        fakes[0].mood = mood
        hit = next(request["prompt"][3] - 1000 for request in fakes[0].requests)
        assert (await fleet.complete(conversation(hit))).choices
        assert metric(fleet, "agentflux_engine_retries_total", reason="busy" if mood == "busy" else "lost") == 1


async def test_a_full_queue_is_no_illness():
    async with engines(2, mood="busy") as fakes, fleet_of(*fakes) as fleet:
        for number in range(20):
            with pytest.raises(EngineUnavailable, match="queue is full"):
                await fleet.complete(conversation(number))
        assert all(is_up(fleet, fake) for fake in fakes)


@pytest.mark.parametrize("mood", ["busy", "drops", "breaks"])
async def test_load_is_never_amplified_by_more_than_a_tenth_while_all_engines_fail(mood):
    async with engines(3, mood=mood) as fakes, fleet_of(*fakes) as fleet:
        sent = 200
        replies = await asyncio.gather(*(fleet.complete(conversation(number)) for number in range(sent)), return_exceptions=True)
        assert all(isinstance(reply, EngineUnavailable) for reply in replies)
        assert sent <= sum(len(fake.requests) for fake in fakes) <= 1.1 * sent
        assert (metric(fleet, "agentflux_engine_retry_budget_exhausted_total") or 0) > 0


async def test_a_request_that_kills_engines_kills_no_third_one():
    async with engines(4) as fakes, fleet_of(*fakes) as fleet:
        for number in range(100):
            await fleet.complete(conversation(number))
        before = [len(fake.requests) for fake in fakes]
        for fake in fakes:
            fake.mood = "drops"
        with pytest.raises(EngineUnavailable):
            await fleet.complete(conversation(0))
        assert sum(len(fake.requests) for fake in fakes) - sum(before) == 2


async def test_an_adapter_that_one_engine_has_lost_is_served_by_another_whatever_the_budget():
    async with engines(2) as fakes, fleet_of(*fakes) as fleet:
        await fleet.score(SELECTOR, [[1]], [8])
        (home,) = [fake for fake in fakes if fake.requests]
        home.mood = "bare"
        for _ in range(5):
            assert (await fleet.score(SELECTOR, [[1]], [8])).logprobs
        assert len(home.requests) == 6
        assert metric(fleet, "agentflux_engine_retries_total", reason="refused") == 5
        assert is_up(fleet, home)


@pytest.mark.parametrize("count", [1, 2])
async def test_an_adapter_that_no_engine_has_is_not_the_callers_fault(count):
    async with engines(count, mood="bare") as fakes, fleet_of(*fakes) as fleet:
        with pytest.raises(EngineUnavailable, match=f"does not serve {SELECTOR}.*does not exist") as raised:
            await fleet.score(SELECTOR, [[1, 5, 1]], [8])
        assert raised.value.retry_after
        assert [len(fake.requests) for fake in fakes] == [1] * count


@pytest.mark.parametrize(("mood", "error"), [("strict", InvalidRequest), ("mute", DeadlineExceeded)])
async def test_what_an_engine_refuses_or_has_no_time_for_is_not_tried_elsewhere(mood, error):
    async with engines(2) as fakes, fleet_of(*fakes, timeout_s=0.3) as fleet:
        for number in range(20):
            await fleet.complete(conversation(number))
        before = sum(len(fake.requests) for fake in fakes)
        for fake in fakes:
            fake.mood = mood
        with pytest.raises(error):
            await fleet.complete(conversation(0))
        assert sum(len(fake.requests) for fake in fakes) == before + 1


async def test_the_deadline_is_one_for_all_tries():
    async with engines(2) as fakes, fleet_of(*fakes, timeout_s=0.5) as fleet:
        for number in range(10):
            await fleet.complete(conversation(number))
        for fake in fakes:
            fake.mood, fake.delay_s = "busy", 0.3
        # Each of two tries alone would be in time.
        with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
            await fleet.complete(conversation(0))
        assert sum(len(fake.requests) for fake in fakes) == 12


# --- Streams ---


async def test_a_stream_is_tried_again_before_its_first_chunk_only():
    async with engines(2) as fakes, fleet_of(*fakes) as fleet:
        for number in range(20):
            assert [c async for c in fleet.stream_chat(body(number))][-1]["usage"]["prompt_tokens"] == 11
        hit = int(fakes[0].requests[0]["messages"][0]["content"].split()[1])
        fakes[0].mood = "drops"
        assert len([chunk async for chunk in fleet.stream_chat(body(hit))]) == 4

        fakes[0].mood, fakes[0].delay_s = "well", 0.2
        await fleet.chat(body(hit))
        asked = sum(len(fake.requests) for fake in fakes)
        async with aclosing(fleet.stream_chat(body(hit))) as chunks:
            await anext(chunks)
            await fakes[0].stop()
            with pytest.raises(EngineUnavailable):
                await anext(chunks)
        assert sum(len(fake.requests) for fake in fakes) == asked + 1


async def test_a_stream_may_last_longer_than_the_timeout_once_it_has_begun():
    async with engines(1, delay_s=0.25) as fakes, fleet_of(*fakes, timeout_s=0.6) as fleet:
        assert len([chunk async for chunk in fleet.stream_chat(body())]) == 4


async def test_each_chunk_may_be_awaited_by_another_task():
    async with engines(2) as fakes, fleet_of(*fakes) as fleet, aclosing(fleet.stream_chat(body())) as chunks:
        words = [await asyncio.create_task(anext(chunks)) for _ in range(3)]
        assert [word["choices"][0]["delta"]["content"] for word in words] == ["one ", "two ", "three"]


# --- Relaying ---


async def test_prompts_on_other_paths_are_relayed_as_they_are_and_meet_by_their_beginning():
    asked = [{"model": "base", "prompt": f"Question {number}", "n": 1} for number in range(30)]
    async with engines(3) as fakes, fleet_of(*fakes) as fleet:
        for body_of_prompt in [*asked, *asked]:
            assert (await fleet.relay("/v1/completions", body_of_prompt))["choices"][0]["text"] == "{}"
        homes = [{request["prompt"] for request in fake.requests} for fake in fakes]
        assert all(homes)
        assert sum(map(len, homes)) == 30
        assert fakes[0].requests[0] in asked
        assert metric(fleet, "agentflux_engine_requests_total", adapter="base", role="selector", outcome="ok") == 60


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("engine answered 404: '/v1/embeddings' is not a route of this engine; it has /health", NotFound),
        ("engine answered 404: Not Found", NotFound),
        ("engine answered 405: Method Not Allowed", NotFound),
        ("engine answered 400: The model does not support Embeddings API", NotFound),
        ("engine answered 404: The model `base` does not exist.", InvalidRequest),
        ("engine answered 400: The input is longer than the maximum model length", ContextLengthExceeded),
    ],
)
async def test_what_an_engine_lacks_is_not_found(said, error):
    status = int(said.split()[2].rstrip(":"))
    reply = httpx.Response(status, json={"error": {"message": said.partition(": ")[2], "code": status}})
    transport = httpx.MockTransport(lambda _: reply)
    engine = EngineClient(HttpClient("http://engine", service="engine", timeout_s=5, transport=transport))
    with pytest.raises(AgentFluxError) as caught:
        await engine.relay("/v1/embeddings", {"model": "base", "input": "a"})
    assert type(caught.value) is error
    assert caught.value.param == ("input" if error is ContextLengthExceeded else None)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, f"'{SELECTOR}' does not exist: it is neither the base model nor a published adapter."),
        (400, f"adapter {SELECTOR} has rank 64, this engine takes up to 16"),
        (400, f"LoRA adapter '{SELECTOR}' was found but could not be loaded."),
    ],
)
async def test_an_adapter_that_an_engine_does_not_take_is_refused_by_name(status, said):
    reply = httpx.Response(status, json={"error": {"message": said, "code": status}})
    transport = httpx.MockTransport(lambda _: reply)
    engine = EngineClient(HttpClient("http://engine", service="engine", timeout_s=5, transport=transport))
    with pytest.raises(AdapterRefused, match=re.escape(said)):
        await engine.score(SELECTOR, [[1]], [2])


# --- Cancelling ---


async def test_a_cancelled_call_is_closed_upstream():
    async with engines(2, mood="mute") as fakes, fleet_of(*fakes) as fleet:
        for request in (fleet.complete(conversation(0)), fleet.score(SELECTOR, [[1]], [2]), fleet.chat(body())):
            for fake in fakes:
                fake.requests.clear()
                fake.left.clear()
            call = asyncio.create_task(request)
            await eventually(lambda: any(fake.requests for fake in fakes))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await eventually(lambda: any(fake.left for fake in fakes), within_s=1)
        assert metric(fleet, "agentflux_engine_requests_total", adapter="base", role="selector", outcome="cancelled") == 2


async def test_a_stream_that_is_left_is_closed_upstream():
    async with engines(2, delay_s=5) as fakes, fleet_of(*fakes) as fleet:
        for fake in fakes:
            fake.delay_s = 0
        async with aclosing(fleet.stream_chat(body())) as chunks:
            await anext(chunks)
            (serving,) = [fake for fake in fakes if fake.requests]
            serving.delay_s = 5
            await anext(chunks)
        await eventually(lambda: serving.left, within_s=1)
        assert metric(fleet, "agentflux_engine_inflight_requests", engine=serving.url) == 0


# --- Context length, metrics ---


async def test_the_context_length_is_the_least_of_all_engines_and_follows_a_restart():
    async with engines(2) as fakes, fleet_of(*fakes) as fleet:
        fakes[1].context_length = 2048
        assert await fleet.context_length() == 2048
        await fakes[1].stop()
        await eventually(lambda: not is_up(fleet, fakes[1]))
        assert await fleet.context_length() == 4096
        fakes[1].context_length = 1024
        await fakes[1].start()
        await eventually(lambda: is_up(fleet, fakes[1]))
        assert await fleet.context_length() == 1024


async def test_a_reply_longer_than_the_context_is_not_asked_for():
    async with engines(1) as (fake,), fleet_of(fake) as fleet:
        for wanted in (32000, 100):
            await fleet.chat({**body(), "max_tokens": wanted})
            assert [chunk async for chunk in fleet.stream_chat({**body(), "max_tokens": wanted})]
        await fleet.chat(body())
        assert [request.get("max_tokens") for request in fake.requests] == [4096, 4096, 100, 100, None]


async def test_requests_are_counted_by_adapter_and_role():
    async with engines(1) as (fake,), fleet_of(fake) as fleet:
        await fleet.score(SELECTOR, [[1, 2, 3, 4]], [5])
        await fleet.chat(body())
        assert [c async for c in fleet.stream_chat(body())]
        of_selector = {"adapter": SELECTOR, "role": "selector"}
        assert metric(fleet, "agentflux_engine_requests_total", **of_selector, outcome="ok") == 1
        assert metric(fleet, "agentflux_engine_request_duration_seconds_count", **of_selector) == 1
        assert metric(fleet, "agentflux_engine_tokens_total", **of_selector, kind="prompt") == 4
        assert metric(fleet, "agentflux_engine_tokens_total", **of_selector, kind="cached") == 2
        assert metric(fleet, "agentflux_engine_tokens_total", adapter="base", role="selector", kind="prompt") == 22
        assert metric(fleet, "agentflux_engine_tokens_total", adapter="base", role="selector", kind="completion") == 7
        assert metric(fleet, "agentflux_engine_requests", **of_selector) == 0


async def test_a_broken_engine_list_is_said_so():
    async with engines(1) as (fake,), fleet_of(fake) as fleet:
        fake.context_length = "many"  # type: ignore[assignment]
        assert re.search("does not list its models as vLLM does", await fleet.ready() or "")
