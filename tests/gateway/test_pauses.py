"""Items that are taken one by one, and the pauses between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.gateway.api.pauses import BeforeWaiting

pytestmark = pytest.mark.anyio


async def told(source: AsyncGenerator[str]) -> list[str]:
    """The items of `source`, and `-` for every pause."""
    heard: list[str] = []

    async def pausing() -> None:
        heard.append("-")

    async for item in BeforeWaiting(source, pausing):
        heard.append(item)
    return heard


async def test_a_pause_is_told_once_before_each_wait_and_never_else() -> None:
    async def source() -> AsyncGenerator[str]:
        yield "a"
        yield "b"
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        yield "c"
        await asyncio.sleep(0)

    assert await told(source()) == ["a", "b", "-", "c", "-"]


async def test_what_a_source_raises_is_raised_whether_or_not_it_waited() -> None:
    async def source(waits: bool) -> AsyncGenerator[str]:
        yield "a"
        if waits:
            await asyncio.sleep(0)
        raise ValueError("broken")

    for waits in (False, True):
        with pytest.raises(ValueError, match="broken"):
            await told(source(waits))


async def test_a_source_may_catch_what_it_awaited() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def source() -> AsyncGenerator[str]:
        try:
            await failing()
        except ValueError:
            yield "caught"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        yield "late"

    assert await told(source()) == ["-", "caught", "-", "late"]


@pytest.mark.parametrize("where", ["in the pause", "in the wait"])
async def test_whoever_is_cancelled_cancels_the_source_and_waits_for_its_end(where: str) -> None:
    reached, steps = asyncio.Event(), []

    async def source() -> AsyncGenerator[str]:
        try:
            yield "a"
            if where == "in the wait":
                reached.set()
            await asyncio.Event().wait()
        finally:
            # Ending may take time, too.
            await asyncio.sleep(0.001)
            steps.append("closed")

    async def pausing() -> None:
        if where == "in the pause":
            reached.set()
            await asyncio.Event().wait()

    async def listen() -> None:
        async with aclosing(source()) as items:
            async for _ in BeforeWaiting(items, pausing):
                pass

    listening = asyncio.create_task(listen())
    await reached.wait()
    await asyncio.sleep(0)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert steps == ["closed"]


async def test_what_the_pause_raises_reaches_the_source_and_the_listener() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[str]:
        try:
            await asyncio.sleep(0)
            yield "never"
        finally:
            closed.set()

    async def pausing() -> None:
        raise ConnectionError("the reader is gone")

    with pytest.raises(ConnectionError, match="gone"):
        async for _ in BeforeWaiting(source(), pausing):
            pass
    assert closed.is_set()
