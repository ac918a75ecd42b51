"""Calls, cancellations, answers and deaths in any order: every call ends once, with its own answer or with why there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from mcp_types import TextContent

from services.sandbox.errors import ServerDied, ServerMisbehaved, ToolsDiffer
from services.sandbox.limits import Limits
from services.sandbox.process import LISTING_AGE_S, McpServer
from services.sandbox.toolsets import Toolsets
from tests.sandbox.conftest import write_toolset
from tests.sandbox.hostile import server as hostile
from tests.sandbox.pipes import PipedServer

T = TypeVar("T")
ANY = st.integers(0, 1000)


class OneServer:
    """The part of a driver that `McpServer` uses."""

    def __init__(self, process: PipedServer) -> None:
        self._process = process

    async def start(self, spec: object) -> PipedServer:
        return self._process


def answer(request_id: int, words: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": [{"type": "text", "text": words}]}}


async def list_tools(process: PipedServer, tools: list[dict[str, Any]]) -> None:
    """Answers the next request, which has to be for the list."""
    asked = await process.asked()
    assert asked["method"] == "tools/list"
    process.say({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": tools}})


async def started(
    folder: Path, *, verify: bool = False, clock: Callable[[], float] = time.monotonic
) -> tuple[McpServer, PipedServer]:
    """A server of the older era, ready to be called."""
    write_toolset(folder / "files", command=["x"])
    process = PipedServer()
    toolset = Toolsets(folder, Limits()).get("files")
    server = McpServer(
        toolset, driver=OneServer(process), workspace=folder, verify=verify, clock=clock,  # type: ignore[arg-type]
    )  # fmt: skip
    server.start()
    probe = await process.asked()
    process.say({"jsonrpc": "2.0", "id": probe["id"], "error": {"code": -32601, "message": "no such method"}})
    hello = await process.asked()
    greeting = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    process.say({"jsonrpc": "2.0", "id": hello["id"], "result": greeting})
    assert (await process.asked())["method"] == "notifications/initialized"
    await list_tools(process, hostile.listed())
    await asyncio.wait_for(server.ready(), 10)
    return server, process


class Calls(RuleBasedStateMachine):
    """What is open, what was cancelled, and whether the server lives; the rules say what has to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.server, self.process = self.run(started(Path(self.folder.name)))
        self.open: dict[int, asyncio.Task[Any]] = {}
        self.cancelled: list[int] = []
        self.lives = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def pick(self, number: int) -> tuple[int, asyncio.Task[Any]]:
        request_id = sorted(self.open)[number % len(self.open)]
        return request_id, self.open.pop(request_id)

    @precondition(lambda self: self.lives)
    @rule()
    def call(self) -> None:
        task = self.loop.create_task(self.server.call("echo", {}))
        asked = self.run(self.process.asked())
        assert asked["method"] == "tools/call"
        assert asked["id"] not in self.open
        self.open[asked["id"]] = task

    @precondition(lambda self: self.open and self.lives)
    @rule(number=ANY)
    def reply(self, number: int) -> None:
        request_id, task = self.pick(number)
        self.process.say(answer(request_id, f"for {request_id}"))
        said = self.run(_result(task)).content[0]
        assert isinstance(said, TextContent)
        assert said.text == f"for {request_id}"

    @precondition(lambda self: self.open and self.lives)
    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        request_id, task = self.pick(number)
        task.cancel()
        told = self.run(self.process.asked())
        assert (told["method"], told["params"]["requestId"]) == ("notifications/cancelled", request_id)
        with pytest.raises(asyncio.CancelledError):
            self.run(_result(task))
        self.cancelled.append(request_id)

    @precondition(lambda self: self.cancelled and self.lives)
    @rule(number=ANY)
    def late(self, number: int) -> None:
        self.process.say(answer(self.cancelled[number % len(self.cancelled)], "late"))

    @precondition(lambda self: self.open and self.lives)
    @rule(number=ANY)
    def garble(self, number: int) -> None:
        request_id, task = self.pick(number)
        self.process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}\n' % request_id)
        with pytest.raises(ServerMisbehaved):
            self.run(_result(task))

    @precondition(lambda self: self.lives)
    @rule(killed=st.booleans())
    def die(self, killed: bool) -> None:
        self.lives = False
        if killed:
            self.server.kill()
        else:
            self.process.end()

    @precondition(lambda self: not self.lives)
    @rule()
    def call_the_dead(self) -> None:
        with pytest.raises(ServerDied):
            self.run(self.server.call("echo", {}))

    def teardown(self) -> None:
        self.process.end()
        for task in self.open.values():
            with pytest.raises(ServerDied):
                self.run(_result(task))
        self.server.kill()
        self.run(self.server.gone())
        assert not self.server.is_sound
        assert self.process.kills
        self.loop.close()
        self.folder.cleanup()


async def _result(task: asyncio.Task[Any]) -> Any:
    return await task


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=15)


class Hands:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[McpServer, PipedServer, Hands]]:
    """A server whose list is held against what is pinned, and its clock."""
    clock = Hands()
    server, process = await started(tmp_path, verify=True, clock=clock)
    yield server, process, clock
    server.kill()
    await server.gone()


Watched = tuple[McpServer, PipedServer, Hands]


async def answered(process: PipedServer) -> None:
    """The next request has to be a call; it is answered."""
    asked = await process.asked()
    assert asked["method"] == "tools/call"
    process.say(answer(asked["id"], "done"))


@pytest.mark.anyio
async def test_calls_that_come_closely_one_after_another_are_not_preceded_by_a_listing(watched: Watched) -> None:
    server, process, clock = watched
    for _ in range(3):
        call = asyncio.create_task(server.call("echo", {}))
        await answered(process)
        await call
        clock.now += LISTING_AGE_S / 4


@pytest.mark.anyio
async def test_an_old_listing_is_done_again_once_for_all_calls_that_wait(watched: Watched) -> None:
    server, process, clock = watched
    clock.now += LISTING_AGE_S * 1.5
    calls = [asyncio.create_task(server.call("echo", {})) for _ in range(3)]
    await list_tools(process, hostile.listed())
    for _ in calls:
        await answered(process)
    await asyncio.gather(*calls)


@pytest.mark.anyio
async def test_a_change_without_a_word_is_seen_before_the_next_call_and_by_all_that_wait(watched: Watched) -> None:
    server, process, clock = watched
    clock.now += LISTING_AGE_S * 1.5
    calls = [asyncio.create_task(server.call("echo", {})) for _ in range(2)]
    for _ in calls:
        await list_tools(process, hostile.listed()[1:])
    refused = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in refused] == [ToolsDiffer, ToolsDiffer]
    assert process.stdin.lines.empty()


@pytest.mark.anyio
async def test_a_change_announced_while_the_list_is_read_is_looked_at_again(watched: Watched) -> None:
    server, process, clock = watched
    clock.now += LISTING_AGE_S * 1.5
    call = asyncio.create_task(server.call("echo", {}))
    process.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    await list_tools(process, hostile.listed())
    await answered(process)
    await call
    call = asyncio.create_task(server.call("echo", {}))
    await list_tools(process, hostile.listed()[1:])
    with pytest.raises(ToolsDiffer, match="is gone"):
        await call


@pytest.mark.anyio
async def test_a_call_that_fails_has_the_list_looked_at_at_once(watched: Watched) -> None:
    server, process, _ = watched
    for tools, expected in ((hostile.listed(), None), (hostile.listed()[1:], ToolsDiffer)):
        call = asyncio.create_task(server.call("echo", {}))
        asked = await process.asked()
        process.say({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32602, "message": "Unknown tool: echo"}})
        await list_tools(process, tools)
        if expected is None:
            said = (await call).content[0]
            assert isinstance(said, TextContent)
            assert said.text == "Unknown tool: echo (-32602)"
        else:
            with pytest.raises(expected):
                await call


@pytest.mark.anyio
async def test_a_listing_that_is_refused_is_no_reason_to_forward_the_call(watched: Watched) -> None:
    server, process, clock = watched
    clock.now += LISTING_AGE_S * 1.5
    call = asyncio.create_task(server.call("echo", {}))
    asked = await process.asked()
    process.say({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}})
    with pytest.raises(ServerMisbehaved, match="while it listed its tools again: no such method"):
        await call
    assert process.stdin.lines.empty()


@pytest.mark.anyio
async def test_what_a_server_says_before_it_ends_is_heard(watched: Watched) -> None:
    server, process, _ = watched
    call = asyncio.create_task(server.call("echo", {}))
    asked = await process.asked()
    process.say({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32603, "message": "out of disk"}})
    assert (await process.asked())["method"] == "tools/list"
    process.end()
    said = (await call).content[0]
    assert isinstance(said, TextContent)
    assert said.text == "out of disk (-32603)"
    assert not server.is_sound
