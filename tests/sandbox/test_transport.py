"""The pipe to a server, without a server: what gets through, what is answered in its place, and when it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from services.sandbox.errors import OutputTooLarge, ServerMisbehaved
from services.sandbox.transport import BAD_FRAME_BUDGET, UNASKED_BUDGET, UNASKED_BYTES, UNREADABLE_ANSWER, BoundedStdio, ToServer
from tests.sandbox.pipes import PipedServer

pytestmark = pytest.mark.anyio

ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
NOTE = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}}
FRAME_BYTES = 4096


class Line:
    """Both ends of a transport: the process, and what the SDK's session would hold."""

    def __init__(self) -> None:
        self.process, self.over = PipedServer(), asyncio.Event()
        self.stdio = BoundedStdio(self.process, frame_bytes=FRAME_BYTES, over=self.over)
        self.incoming: MemoryObjectReceiveStream[SessionMessage | Exception]
        self.outgoing: ToServer

    async def heard(self) -> dict[str, Any]:
        with anyio.fail_after(10):
            return plain(await self.incoming.receive())

    async def rest(self) -> list[dict[str, Any]]:
        with anyio.fail_after(10):
            return [plain(message) async for message in self.incoming]

    async def send(self, message: dict[str, Any]) -> None:
        await self.outgoing.send(SessionMessage(jsonrpc_message_adapter.validate_python(message)))


def plain(message: SessionMessage | Exception) -> dict[str, Any]:
    assert isinstance(message, SessionMessage)
    return message.message.model_dump(by_alias=True, exclude_unset=True)


@asynccontextmanager
async def connected() -> AsyncIterator[Line]:
    line = Line()
    async with line.stdio.connect() as (line.incoming, line.outgoing):
        yield line
    assert line.process.kills
    assert line.process.stdin.closed


async def test_messages_go_both_ways_as_they_are() -> None:
    async with connected() as line:
        line.process.say(ANSWER)
        assert await line.heard() == ANSWER
        asked = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"x": 2**53 + 1}}}
        await line.send(asked)
        assert await line.process.asked() == asked
    assert line.stdio.violation is None


@pytest.mark.parametrize("bad", [b'{"jsonrpc":"2.0","id":7,"result":NaN}\n', b'{"jsonrpc":"2.0","id":7,"result":1,"error":2}\n'])
async def test_an_answer_that_cannot_be_read_fails_its_call_in_its_place(bad: bytes) -> None:
    async with connected() as line:
        line.process.say(bad)
        heard = await line.heard()
        assert (heard["id"], heard["error"]["code"]) == (7, UNREADABLE_ANSWER)
        assert "cannot be read" in heard["error"]["message"]
        line.process.say(ANSWER)
        assert await line.heard() == ANSWER


@pytest.mark.parametrize(
    "stray",
    [b"hello\n", b"[1]\n", b'{"id":true,"result":{}}\n', b'{"id":7,"method":"x","params":1}\n', b'{"id":"7","result":1}\n'],
)
async def test_stray_lines_are_dropped_until_there_are_too_many(stray: bytes) -> None:
    async with connected() as line:
        line.process.say(stray * BAD_FRAME_BUDGET)
        line.process.say(ANSWER)
        assert await line.heard() == ANSWER
        assert line.stdio.violation is None
        line.process.say(stray * 2 + b'{"jsonrpc":"2.0","id":1,"result":{"too":"late"}}\n')
        assert await line.rest() == []
        assert line.over.is_set()
    assert isinstance(line.stdio.violation, ServerMisbehaved)
    assert f"wrote {BAD_FRAME_BUDGET + 1} lines to stdout" in str(line.stdio.violation)


async def test_a_line_beyond_the_limit_ends_the_server_and_names_the_setting() -> None:
    async with connected() as line:
        line.process.say(b"x" * (FRAME_BYTES + 1))
        assert await line.rest() == []
        assert line.process.kills
    assert isinstance(line.stdio.violation, OutputTooLarge)
    assert "raise output_bytes in toolset.yaml" in str(line.stdio.violation)


async def flood(line: Line, message: dict[str, Any], count: int) -> None:
    """`message`, heard as often as it was said."""
    for _ in range(count):
        line.process.say(message)
        assert await line.heard() == message


async def test_only_a_request_of_ours_gives_the_server_more_to_say() -> None:
    async with connected() as line:
        await flood(line, NOTE, UNASKED_BUDGET)
        await line.send({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        await line.process.asked()
        await flood(line, NOTE, UNASKED_BUDGET)
        # Our refusal of what it asks is no request.
        await line.send({"jsonrpc": "2.0", "id": 9, "error": {"code": -32601, "message": "no"}})
        await line.process.asked()
        line.process.say(NOTE)
        await line.heard()
        assert await line.rest() == []
    assert isinstance(line.stdio.violation, ServerMisbehaved)
    assert f"more than {UNASKED_BUDGET} messages that nobody asked for" in str(line.stdio.violation)


async def test_an_answer_is_asked_for_once() -> None:
    async with connected() as line:
        for number in range(3):
            await line.send({"jsonrpc": "2.0", "id": number, "method": "tools/list"})
            await line.process.asked()
        for number in range(3):
            await flood(line, {"jsonrpc": "2.0", "id": number, "result": {}}, 1)
        # One answer too many, one of a server that asks with our number, and one too many of anything.
        await flood(line, ANSWER, UNASKED_BUDGET - 1)
        await flood(line, {"jsonrpc": "2.0", "id": 2, "method": "roots/list"}, 1)
        assert line.stdio.violation is None
        line.process.say(ANSWER)
        await line.rest()
    assert isinstance(line.stdio.violation, ServerMisbehaved)


async def test_what_nobody_asked_for_is_bounded_in_bytes_too() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * (FRAME_BYTES - 200)}}
    async with connected() as line:
        count = 0
        while line.stdio.violation is None:
            line.process.say(note)
            count += len(await line.rest() if line.over.is_set() else [await line.heard()])
            await asyncio.sleep(0)
    assert (UNASKED_BYTES // FRAME_BYTES) <= count <= UNASKED_BYTES // (FRAME_BYTES - 200) + 1


async def test_the_end_of_the_server_is_the_end_of_the_session() -> None:
    async with connected() as line:
        line.process.say(b'{"jsonrpc":"2.0","id":1,"res')
        line.process.end()
        assert await line.rest() == []
        assert line.over.is_set()
    assert line.stdio.violation is None


async def test_a_session_that_is_closed_first_is_no_error() -> None:
    async with connected() as line:
        line.incoming.close()
        line.process.say(ANSWER)
        with anyio.fail_after(10):
            await line.over.wait()
    assert line.stdio.violation is None


async def test_a_pipe_that_breaks_while_we_write_is_no_error() -> None:
    async with connected() as line:
        line.process.stdin.broken = True
        await line.send({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        await line.process.asked()
        line.process.say(ANSWER)
        assert await line.heard() == ANSWER


async def test_of_stderr_the_last_words_stay_without_what_would_move_a_terminal() -> None:
    async with connected() as line:
        line.process.stderr.feed_data(b"first " + b"x" * 100_000 + b"\x1b[31m\nthe \xff end\r\n")
    assert line.stdio.last_words.endswith("x [31m the \ufffd end")
    assert len(line.stdio.last_words) == 600
