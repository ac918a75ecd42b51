"""Calls, cancellations, answers and deaths in any order: every call ends once, with its own answer or with why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from mcp_types import TextContent

from services.sandbox.errors import ServerDied, ServerMisbehaved
from services.sandbox.limits import Limits
from services.sandbox.process import McpServer
from services.sandbox.toolsets import Toolsets
from tests.sandbox.conftest import write_toolset
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


async def started(folder: Path) -> tuple[McpServer, PipedServer]:
    """A server of the older era, ready to be called."""
    write_toolset(folder / "files", command=["x"])
    process = PipedServer()
    toolset = Toolsets(folder, Limits()).get("files")
    server = McpServer(toolset, driver=OneServer(process), workspace=folder, verify=False)  # type: ignore[arg-type]
    server.start()
    probe = await process.asked()
    process.say({"jsonrpc": "2.0", "id": probe["id"], "error": {"code": -32601, "message": "no such method"}})
    hello = await process.asked()
    greeting = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    process.say({"jsonrpc": "2.0", "id": hello["id"], "result": greeting})
    assert (await process.asked())["method"] == "notifications/initialized"
    process.say({"jsonrpc": "2.0", "id": (await process.asked())["id"], "result": {"tools": []}})
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
TestCalls.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
