"""What no bytes of a server may bring about, and a fuzzer that looks for such bytes: `make fuzz-sandbox`.

It begins with the seeds; what it learns stays in a temporary directory, and findings are written to the current one. Options are
libFuzzer's. The suite tries the same `one_input` with the seeds and with what hypothesis makes of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from types import FunctionType
from typing import Any

from services.sandbox import frames, transport
from services.sandbox.errors import SandboxError
from services.sandbox.frames import MAX_DEPTH, BadFrame, FrameTooLong, LineBuffer, parse_frame
from services.sandbox.transport import BAD_FRAME_BUDGET, BoundedStdio
from tests.sandbox.pipes import PipedServer

SEEDS = Path(__file__).with_name("seeds")
FRAME_BYTES = 4096
LAST = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'


def one_input(data: bytes, loop: asyncio.AbstractEventLoop) -> None:
    """Lets a server write `data`. The first byte says in how large pieces it arrives."""
    if not data:
        return
    step, stream = data[0] + 1, data[1:]
    lines = _lines(stream, step)
    if lines != (whole := _lines(stream, len(stream) or 1)):
        raise AssertionError(f"the lines depend on how they arrive: {lines!r} and {whole!r}")
    for line in lines or []:
        _check_frame(line)
    loop.run_until_complete(_check_transport(stream, step))


def _lines(stream: bytes, step: int) -> list[bytes] | None:
    """None when one of them is too long."""
    buffer = LineBuffer(FRAME_BYTES)
    try:
        return [line for start in range(0, len(stream), step) for line in buffer.feed(stream[start : start + step])]
    except FrameTooLong:
        return None


def _check_frame(line: bytes) -> None:
    try:
        value = parse_frame(line)
    except BadFrame as bad:
        if bad.request_id is not None and str(bad.request_id).encode() not in line:
            raise AssertionError("the id is from nowhere") from None
        return
    if json.loads(json.dumps(value, allow_nan=False)) != value:
        raise AssertionError("what was read cannot be passed on")
    if _depth(value) > MAX_DEPTH:
        raise AssertionError("too deep")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


async def _check_transport(stream: bytes, step: int) -> None:
    """Whatever comes: the session sees messages only, then the end; and what came before an answer does not eat it."""
    process, over = PipedServer(), asyncio.Event()
    stdio = BoundedStdio(process, frame_bytes=FRAME_BYTES, over=over)
    seen = 0
    async with asyncio.timeout(20), stdio.connect() as (messages, _):
        for start in range(0, len(stream), step):
            process.say(stream[start : start + step])
        process.say(b"\n" + LAST)
        process.end()
        async for message in messages:
            if isinstance(message, Exception):
                raise AssertionError("the session got an error instead of a message")
            seen += 1
            last = message.message.model_dump(by_alias=True, exclude_unset=True)
    if stdio.violation is None:
        if last != json.loads(LAST):
            raise AssertionError("an answer was lost")
    elif not isinstance(stdio.violation, SandboxError):
        raise AssertionError("a violation without a reason")
    if not (over.is_set() and process.kills) or stdio._bad_frames > BAD_FRAME_BUDGET + 1 + seen:
        raise AssertionError("the server goes on after its end")


def main() -> None:
    """Runs libFuzzer until it finds something or is told to stop."""
    import atheris

    # What these two modules do steers the search.
    for holder in (frames, transport, frames.LineBuffer, transport.BoundedStdio):
        for function in vars(holder).values():
            if isinstance(function, FunctionType) and function.__module__ in (frames.__name__, transport.__name__):
                atheris.instrument_func(function)
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(prefix="agentflux-fuzz-") as learned:
        atheris.Setup([*sys.argv, learned, str(SEEDS)], lambda data: one_input(data, loop))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
