"""When a service that fails is left alone, when it is asked again, and what may be sent twice."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from services.shared.clients.breaker import Breaker
from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import AgentFluxError, DeadlineExceeded, InvalidRequest, Unavailable

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Said(BaseModel):
    text: str = ""


class Service:
    """Answers what `next` says: a status, or an exception to be raised in its place."""

    def __init__(self) -> None:
        self.asked = 0
        self.next: list[int | Exception] = []
        self.clock = Clock()
        self.breaker = Breaker(failures=3, wait_s=10, clock=self.clock)
        transport = httpx.MockTransport(self.answer)
        self.client = HttpClient("http://service", service="selector", timeout_s=5, breaker=self.breaker, transport=transport)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        reply = self.next.pop(0) if self.next else 200
        if isinstance(reply, Exception):
            raise reply
        body: dict[str, Any] = {"text": "ok"} if reply < 400 else {"error": {"message": "no", "code": "x"}}
        return httpx.Response(reply, json=body)

    async def ask(self, *replies: int | Exception) -> list[str]:
        """Asks once per reply, and once without replies; the classes of the outcomes."""
        self.next = list(replies)
        return [await self._outcome() for _ in replies or [None]]

    async def _outcome(self) -> str:
        try:
            await self.client.ask("/v1/x", Said(), Said)
        except AgentFluxError as error:
            return type(error).__name__
        return "ok"


REFUSED = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "failure", [500, 503, REFUSED, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("went away")], ids=repr
)
async def test_after_so_many_failures_in_a_row_it_is_not_asked_any_more(failure):
    service = Service()
    await service.ask(*[failure] * 3)
    assert service.breaker.state == "open"
    assert await service.ask() == ["Unavailable"]
    assert service.asked == 3


async def test_the_refusal_says_when_to_come_back():
    service = Service()
    await service.ask(500, 500, 500)
    service.clock.now = 7.5
    with pytest.raises(Unavailable, match=r"asked again in 2\.5 s") as raised:
        await service.client.ask("/v1/x", Said(), Said)
    assert raised.value.retry_after == 2.5


async def test_a_success_or_a_refusal_of_the_request_between_them_keeps_it_closed():
    service = Service()
    await service.ask(500, 500, 200, 500, 500, 400, 500, 500)
    assert service.breaker.state == "closed"
    assert service.asked == 8


async def test_after_the_wait_one_request_decides():
    service = Service()
    await service.ask(500, 500, 500)
    service.clock.now = 11
    assert service.breaker.state == "half open"
    assert await service.ask(500) == ["UpstreamError"]
    assert service.breaker.state == "open"
    assert await service.ask() == ["Unavailable"]
    service.clock.now = 22
    assert await service.ask(200, 200) == ["ok", "ok"]
    assert service.breaker.state == "closed"


async def test_only_one_request_is_on_trial_at_a_time_and_one_that_is_cancelled_decides_nothing():
    clock = Clock()
    breaker = Breaker(failures=1, wait_s=10, clock=clock)
    breaker.failed()
    clock.now = 11
    assert breaker.rests_s() is None
    assert breaker.rests_s() is not None
    breaker.let_go()
    assert breaker.rests_s() is None


async def test_a_cancelled_call_gives_the_trial_back():
    service = Service()
    await service.ask(500, 500, 500)
    service.clock.now = 11

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    client = HttpClient(
        "http://service", service="selector", timeout_s=5, breaker=service.breaker, transport=httpx.MockTransport(never)
    )
    call = asyncio.create_task(client.ask("/v1/x", Said(), Said))
    await asyncio.sleep(0.01)
    assert service.breaker.state == "open"
    call.cancel()
    await asyncio.wait({call})
    assert service.breaker.state == "half open"


async def test_failures_of_requests_from_before_it_opened_do_not_prolong_the_wait():
    clock = Clock()
    breaker = Breaker(failures=1, wait_s=10, clock=clock)
    breaker.failed()
    clock.now = 9
    breaker.failed()
    clock.now = 11
    assert breaker.state == "half open"


async def test_a_lost_connection_is_tried_again_and_a_timeout_is_not():
    service = Service()
    await service.ask(*[200] * 20)
    service.next = [REFUSED, 200]
    assert (await service.client.ask("/v1/x", Said(), Said)).text == "ok"
    assert (service.asked, service.breaker.retries) == (22, 1)
    for reply, error in ((httpx.ReadTimeout("slow"), DeadlineExceeded), (503, Unavailable), (400, InvalidRequest)):
        service.next = [reply]
        with pytest.raises(AgentFluxError) as raised:
            await service.client.ask("/v1/x", Said(), Said)
        assert isinstance(raised.value, error) or reply == 503
    assert service.asked == 25


async def test_retries_add_a_tenth_at_most():
    service = Service()
    for number in range(100):
        await service.ask(REFUSED if number % 2 else 200)
    assert service.breaker.retries == service.asked - 100
    assert 5 <= service.breaker.retries <= 10
