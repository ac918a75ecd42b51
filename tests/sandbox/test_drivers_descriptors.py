"""What bubblewrap reads from us and tells us, without bubblewrap."""

from __future__ import annotations

import asyncio
import os

import pytest

from services.sandbox.drivers.descriptors import Handshake, memory_files
from tests.descriptors import behind, still_open

pytestmark = pytest.mark.anyio


async def test_contents_are_ready_to_be_read_and_closed_at_the_end() -> None:
    contents = {f"/etc/passwd-{os.getpid()}": b"root", f"/etc/group-{os.getpid()}": b""}
    with memory_files(contents) as opened:
        assert {name: os.read(descriptor, 10) for name, descriptor in opened.items()} == contents
        files = behind(*opened.values())
        assert len(files) == 2
        assert files <= still_open()
    assert not files & still_open()


async def test_the_first_process_is_told_in_pieces_and_waits_until_it_may_go_on() -> None:
    with Handshake() as handshake:
        pipes = behind(handshake.info, handshake.block)
        assert len(pipes) == 2
        assert pipes <= still_open()
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
    assert not pipes & still_open()


async def test_a_bubblewrap_that_failed_has_no_first_process() -> None:
    with Handshake() as handshake:
        assert await handshake.first_process() is None
