"""What bubblewrap reads from us and tells us, without bubblewrap."""

from __future__ import annotations

import asyncio
import os

import pytest

from services.sandbox.drivers.descriptors import Handshake, memory_files

pytestmark = pytest.mark.anyio


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_contents_are_ready_to_be_read_and_closed_at_the_end() -> None:
    before = open_descriptors()
    with memory_files({"/etc/passwd": b"root", "/etc/group": b""}) as opened:
        assert {name: os.read(descriptor, 10) for name, descriptor in opened.items()} == {
            "/etc/passwd": b"root",
            "/etc/group": b"",
        }
    assert open_descriptors() == before


async def test_the_first_process_is_told_in_pieces_and_waits_until_it_may_go_on() -> None:
    before = open_descriptors()
    with Handshake() as handshake:
        told, waiting = os.dup(handshake.info), os.dup(handshake.block)
        os.set_blocking(waiting, False)
        telling = asyncio.create_task(handshake.first_process())
        for piece in (b'{\n    "child-pid": 47', b"11,\n", b"}\n"):
            await asyncio.sleep(0)
            assert not telling.done()
            os.write(told, piece)
        assert await telling == 4711
        with pytest.raises(BlockingIOError):
            os.read(waiting, 1)
        handshake.go_on()
        assert os.read(waiting, 1) == b""
        os.close(told)
        os.close(waiting)
    assert open_descriptors() == before


async def test_a_bubblewrap_that_failed_has_no_first_process() -> None:
    with Handshake() as handshake:
        assert await handshake.first_process() is None
