"""Requests that schemathesis makes up from our own OpenAPI document, right ones and wrong ones: never a failure of ours.

AGENTFLUX_FUZZ_CASES sets how many per operation and kind; 700 and more make it ten thousand in all.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import schemathesis.openapi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from tests.stack import running_stack

CASES = int(os.environ.get("AGENTFLUX_FUZZ_CASES", "25"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The gateway's, served from another thread: schemathesis is not asynchronous."""
    loop, stop, found, up = asyncio.new_event_loop(), asyncio.Event(), list[str](), threading.Event()

    async def run() -> None:
        async with running_stack() as stack:
            found.append(stack.url)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert up.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_the_gateway_fail(url: str, mode: GenerationMode) -> None:
    operations = [result.ok() for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
    asked = {operation.label: fuzzed(operation.as_strategy(generation_mode=mode), url) for operation in operations}
    print(f"{sum(asked.values())} requests: {asked}")
    assert sum(count >= CASES for count in asked.values()) > 5


def fuzzed(strategy: st.SearchStrategy[schemathesis.Case], url: str) -> int:
    """How many requests of an operation were sent; none where nothing can be wrong about one."""
    asked = 0

    @settings(max_examples=CASES, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(strategy)
    def ask(case: schemathesis.Case) -> None:
        nonlocal asked
        asked += 1
        reply = case.call(base_url=url, timeout=30)
        told = f"{case.method} {case.path} {case.body!r:.2000} -> {reply.status_code} {reply.text[:500]}"
        assert reply.status_code < 500, told
        assert reply.headers["x-request-id"]
        if reply.status_code >= 400 and case.method != "HEAD":
            assert reply.json()["error"]["message"], told
            assert reply.json()["error"]["type"], told
            assert "detail" not in reply.json()

    with suppress(Unsatisfiable):
        ask()
    return asked
