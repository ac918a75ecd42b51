"""What is prepared while a tool runs, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway.lookahead import Habits, LookAhead, last_called
from services.shared.contracts.arguments import ArgumentsRequest
from services.shared.contracts.errors import EngineUnavailable
from services.shared.contracts.tools import ToolsetRef
from services.shared.contracts.usage import Usage
from tests.fakes import FakeWriter, tool

pytestmark = pytest.mark.anyio
FILES = ToolsetRef(name="files", digest="d", tools=["list", "read", "write"])
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "list", "arguments": "{}"}}]}


def asked(name: str) -> ArgumentsRequest:
    tools = [tool(known) for known in FILES.tools]
    return ArgumentsRequest(tool=name, tools=tools, toolset=FILES, release=3, messages=[{"role": "user", "content": "hi"}])


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_likeliest_followers_come_first_and_rare_ones_not_at_all() -> None:
    habits = Habits()
    for follower, times in {"read": 6, "write": 3, "move": 1}.items():
        for _ in range(times):
            habits.note("files", "list", follower)
    assert habits.likely_next("files", "list", 5) == ["read", "write"]
    assert habits.likely_next("files", "list", 1) == ["read"]
    assert habits.likely_next("files", "read", 5) == habits.likely_next("other", "list", 5) == []


async def test_after_a_call_the_adapter_of_its_usual_follower_reads_the_conversation_and_the_call() -> None:
    writer = FakeWriter()
    ahead = LookAhead(writer, adapters=1)
    ahead.called(asked("read"), "list", CALL)
    ahead.called(asked("list"), None, CALL)
    await settled()
    [prepared] = writer.prepared
    assert (prepared.tool, prepared.release, prepared.messages[-1]) == ("read", 3, CALL)


async def test_nothing_is_prepared_when_it_is_off_busy_or_of_no_toolset() -> None:
    for adapters, busy, request in ((0, False, asked("list")), (1, True, asked("list")), (1, False, asked("list"))):
        writer = FakeWriter()
        ahead = LookAhead(writer, adapters=adapters)
        ahead.called(asked("read"), "list", CALL)
        request = request if adapters == 0 or busy else request.model_copy(update={"toolset": None})
        with ahead.turn(), ahead.turn():
            if busy:
                ahead.called(request, None, CALL)
        if not busy:
            ahead.called(request, None, CALL)
        await settled()
        assert writer.prepared == []


async def test_a_turn_ends_what_is_being_prepared() -> None:
    ended = asyncio.Event()

    class Slow(FakeWriter):
        async def prepare(self, request: ArgumentsRequest) -> Usage:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return Usage()

    ahead = LookAhead(Slow(), adapters=1)
    ahead.called(asked("read"), "list", CALL)
    ahead.called(asked("list"), None, CALL)
    await settled()
    with ahead.turn():
        await asyncio.wait_for(ended.wait(), 5)
    await ahead.aclose()


async def test_a_failure_is_nobodys_problem() -> None:
    class Failing(FakeWriter):
        async def prepare(self, request: ArgumentsRequest) -> Usage:
            raise EngineUnavailable("it restarts")

    ahead = LookAhead(Failing(), adapters=1)
    ahead.called(asked("read"), "list", CALL)
    ahead.called(asked("list"), None, CALL)
    await settled()
    await ahead.aclose()


def test_the_last_call_of_a_conversation_is_known() -> None:
    assert last_called([CALL, {"role": "tool", "content": "x"}]) == "list"
    assert last_called([{"role": "user", "content": "hi"}]) is None
