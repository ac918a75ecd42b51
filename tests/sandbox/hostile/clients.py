"""What hostile or unlucky callers do. Each gives an outcome and what it says, as `Ground.call` does."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

import grpc

from tests.sandbox.hostile.ground import Ground, answered, told

METHOD = "/toolrunner.v1.ToolRunnerService/CallTool"


async def cancelled_then_answered(ground: Ground, case: str) -> tuple[str, str]:
    """One of two calls of a session is cancelled and answered all the same; the other must not get that answer."""
    session: dict[str, Any] = {"tool": "run", "session_id": "s", "tenant": case}
    await ground.call(f"{case}: first", **session)
    source = """
heard = json.loads(sys.stdin.readline())
for number in range(request_id):
    send({"jsonrpc": "2.0", "id": number, "result": text("not yours")})
say("mine" if heard["method"] == "notifications/cancelled" else heard)
"""
    unanswered = asyncio.ensure_future(ground.call(f"{case}: late", "answer = None", **session))
    await asyncio.sleep(0.2)
    other = asyncio.ensure_future(ground.call(case, source, **session))
    await asyncio.sleep(0.5)
    unanswered.cancel()
    await asyncio.wait({unanswered})
    return await other


async def crash_loop(ground: Ground, case: str) -> tuple[str, str]:
    """A tenant whose calls kill their servers, until no more are started for it."""
    for number in range(6):
        what, said = await ground.call(case if number == 5 else f"{case}: {number}", "os._exit(1)", tool="run", tenant=case)
        if number < 5:
            assert what == "UNAVAILABLE SERVER_DIED", what
    return what, said


async def deaf_to_large_arguments(ground: Ground, case: str) -> tuple[str, str]:
    """The server sleeps, while the next call of its session brings more than any pipe holds."""
    session: dict[str, Any] = {"session_id": "s", "tenant": case}
    await ground.call(f"{case}: first", **session)
    asleep = asyncio.ensure_future(ground.call(f"{case}: asleep", "time.sleep(3600)", tool="run", **session, wall_s=1))
    await asyncio.sleep(0.1)
    last = await ground.call(case, "x" * 3_000_000, **session, wall_s=1)
    await asleep
    return last


async def oversize(ground: Ground, case: str) -> tuple[str, str]:
    """Refused before it is read."""
    return await ground.call(case, "x" * (9 << 20))


async def gzip_bomb(ground: Ground, case: str) -> tuple[str, str]:
    """Small on the wire."""
    request = ground.request(case, "x" * (48 << 20))
    return await answered(ground.stub.CallTool(request, timeout=20, compression=grpc.Compression.Gzip))


async def large_metadata(ground: Ground, case: str) -> tuple[str, str]:
    """A megabyte of headers."""
    metadata = tuple((f"x-{number}", "y" * 8000) for number in range(128))
    async with own_channel(ground) as channel:
        return await answered(channel.unary_unary(METHOD)(b"", timeout=10, metadata=metadata))


async def no_time(ground: Ground, case: str) -> tuple[str, str]:
    """A deadline of nothing."""
    return await answered(ground.stub.CallTool(ground.request(case), timeout=0, metadata=told(case)))


async def unknown_method(ground: Ground, case: str) -> tuple[str, str]:
    """There is no such RPC."""
    return await answered(ground.channel.unary_unary(METHOD + "s")(b"", timeout=10))


async def no_protobuf(ground: Ground, case: str) -> tuple[str, str]:
    """Bytes that are no request."""
    return await answered(ground.channel.unary_unary(METHOD)(b"\xff" * 100, timeout=10))


async def mutated_requests(ground: Ground, case: str) -> tuple[str, str]:
    """A request in which bytes were changed, left out or doubled: refused, never an accident of ours."""
    dice, codes = random.Random(6), set()
    request = ground.request(f"{case}: mutated", "x" * 20, toolset="nope", session_id="s", max_output_bytes=7).SerializeToString()
    for _ in range(400):
        changed = bytearray(request)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(changed))
            changed[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 3))
        what, _ = await answered(ground.channel.unary_unary(METHOD)(bytes(changed), timeout=10, metadata=told(case)))
        codes.add(what)
    return await ground.call(case, " ".join(sorted(codes)))


async def strange_tenant(ground: Ground, case: str) -> tuple[str, str]:
    """A name that would be a path."""
    metadata = (("agentflux-tenant", "../../etc"),)
    return await answered(ground.stub.CallTool(ground.request(case), timeout=10, metadata=metadata))


async def strange_connections(ground: Ground, case: str) -> tuple[str, str]:
    """Silent ones, another protocol, half a preface, a frame of 16 MB that never comes; all stay open during a call."""
    said = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP", b"\x16\x03\x01" + b"x" * 600, b"\0" * 10_000]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    said += [preface + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 500]
    opened = [socket.create_connection(("127.0.0.1", ground.port), 5) for _ in range(10) for _ in said]
    try:
        for number, connection in enumerate(opened):
            connection.sendall(said[number % len(said)])
        return await ground.call(case, "heard")
    finally:
        for connection in opened:
            # With a reset, not a farewell.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


async def reset_flood(ground: Ground, case: str) -> tuple[str, str]:
    """Streams that are reset as soon as they are open."""
    for _ in range(10):
        calls = [ground.stub.CallTool(ground.request(f"{case}: reset"), timeout=10, metadata=told(case)) for _ in range(50)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*(answered(call) for call in calls))
    return await ground.call(case, "still here")


async def vanishes(ground: Ground, case: str) -> tuple[str, str]:
    """The connection breaks in the middle of a call, without a farewell."""
    async with own_channel(ground) as channel:
        request = ground.request(case, "time.sleep(3600)", tool="run").SerializeToString()
        call = asyncio.ensure_future(answered(channel.unary_unary(METHOD)(request, timeout=30, metadata=told(case))))
        await started(ground)
        await channel.close(None)
        await call
    return "CANCELLED", ""


async def many_at_once(ground: Ground, case: str) -> tuple[str, str]:
    """As many calls of one session as come to mind; each gets its answer, or is refused before it was started."""
    calls = [ground.call(f"{case}: {number}", str(number), session_id="s", tenant=case) for number in range(500)]
    answers = await asyncio.gather(*calls)
    right = sum(answer == ("OK", str(number)) for number, answer in enumerate(answers))
    busy = sum(what == "RESOURCE_EXHAUSTED SANDBOX_BUSY" for what, _ in answers)
    last = await ground.call(case, f"{right + busy} right", session_id="s", tenant=case)
    return last if right else ("nobody was served", "")


async def cancelled_at_once(ground: Ground, case: str) -> tuple[str, str]:
    """Before it can have arrived."""
    call = ground.stub.CallTool(ground.request(case), timeout=10, metadata=told(case))
    call.cancel()
    return await answered(call)


async def cancelled_in_cold_start(ground: Ground, case: str) -> tuple[str, str]:
    """While its server starts."""
    call = ground.stub.CallTool(ground.request(case), timeout=10, metadata=told(case))
    await started(ground)
    call.cancel()
    return await answered(call)


async def cancelled_at_the_answer(ground: Ground, case: str) -> tuple[str, str]:
    """Over and over, some before the answer and some after it; the session's next call gets its own."""
    for number in range(30):
        call = ground.stub.CallTool(
            ground.request(f"{case}: {number}", "not yours", session_id="s"), timeout=10, metadata=told(case)
        )
        await asyncio.sleep(0.0005 * number)
        call.cancel()
        await answered(call)
    return await ground.call(case, "still mine", tenant=case)


async def cancelled_twice(ground: Ground, case: str) -> tuple[str, str]:
    """And awaited twice."""
    call = ground.stub.CallTool(ground.request(case, "time.sleep(3600)", tool="run"), timeout=10, metadata=told(case))
    await started(ground)
    call.cancel()
    call.cancel()
    await answered(call)
    return await answered(call)


async def no_cross_talk(ground: Ground, case: str) -> tuple[str, str]:
    """Tenants that use the same session ids and tokens of their own."""

    async def one(tenant: str, number: int) -> bool:
        token = f"{tenant}-{number}"
        return await ground.call(f"{case}: {token}", token, tenant=tenant, session_id="s") == ("OK", token)

    right = await asyncio.gather(*(one(tenant, number) for number in range(20) for tenant in ("ada", "bob", "eve")))
    return await ground.call(case, f"{sum(right)} right")


async def started(ground: Ground) -> None:
    """Until something runs besides the bystander's server."""
    for _ in range(1000):
        if ground.processes() - ground.bystanders:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was started")


def own_channel(ground: Ground) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{ground.port}", options=[("grpc.use_local_subchannel_pool", 1)])
