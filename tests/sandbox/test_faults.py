"""Servers that hang, die, flood or lie: always one clear error, never a lost call, and nothing left of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil
import pytest

from services.sandbox.app import Sandbox
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from services.shared.contracts.execution import ToolCallSpec
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from tests.sandbox.conftest import Call

pytestmark = [pytest.mark.anyio, pytest.mark.real]


def tree_of(pid: int) -> set[int]:
    """`pid` and all below it. Orphans inside are among them: their parent is the sandbox's first process."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return set()


def alive(pids: set[int]) -> list[int]:
    """Those of `pids` that are not gone yet."""
    return [pid for pid in pids if psutil.pid_exists(pid)]


async def eventually(holds: Callable[[], bool], *, within_s: float) -> float:
    """Seconds until `holds()`; fails when it takes longer."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def server_pids(service: tuple[Sandbox, SandboxClient]) -> list[int]:
    return [server.pid for server in service[0].pool.servers() if server.pid is not None]


async def started(service: tuple[Sandbox, SandboxClient], call: Call) -> tuple[asyncio.Task[object], set[int]]:
    """A call whose tool hangs, with two daemons beside it, and the processes of its sandbox."""
    before = set(server_pids(service))
    task: asyncio.Task[object] = asyncio.ensure_future(call("deaf", timeout_s=4))
    tree: set[int] = set()

    def complete() -> bool:
        tree.update(*(tree_of(pid) for pid in set(server_pids(service)) - before))
        return sum(_command_line(pid)[:1] == ["sleep"] for pid in tree) == 2

    await eventually(complete, within_s=5)
    return task, tree


async def test_a_cancelled_call_takes_its_whole_tree_with_it(service: tuple[Sandbox, SandboxClient], call: Call) -> None:
    task, tree = await started(service, call)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not alive(tree), within_s=0.5)


async def test_a_call_past_its_deadline_takes_its_whole_tree_with_it(service: tuple[Sandbox, SandboxClient], call: Call) -> None:
    task, tree = await started(service, call)
    with pytest.raises(DeadlineExceeded, match="did not end within 4 s, so its server was killed"):
        await task
    await eventually(lambda: not alive(tree), within_s=0.5)


async def test_daemons_end_with_the_call_that_made_them(service: tuple[Sandbox, SandboxClient], call: Call) -> None:
    assert (await call("daemons")).text == "started"
    await eventually(lambda: not _daemons(), within_s=0.5)


def _daemons() -> list[int]:
    """The daemons of the hostile server, by the odd times that they sleep."""
    return [pid for pid in psutil.pids() if _command_line(pid) in (["sleep", "3597"], ["sleep", "3598"])]


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


async def test_a_server_that_exits_at_start_is_named_with_its_last_words(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"'exit' ended while it started \(exit status 3\).*no licence file found"):
        await call("echo", toolset="exit")


@pytest.mark.parametrize("start", ["hang", "hang-at-list"])
async def test_a_server_that_hangs_at_start_is_killed_and_named(call: Call, start: str) -> None:
    with pytest.raises(DeadlineExceeded, match=rf"'{start}' was not ready within 1 s .* raise start_s"):
        await call("echo", toolset=start)


async def test_a_server_that_exits_in_the_middle_of_a_call_is_named_with_its_last_words(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"ended during a call of 'exit' \(exit status 7\).*the disk is on fire"):
        await call("exit")


async def test_a_server_killed_by_a_signal_is_reported_as_such(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"\(signal 9\)"):
        await call("kill_itself")


async def test_a_memory_hog_hurts_only_itself(call: Call) -> None:
    with pytest.raises(Unavailable, match="MemoryError"):
        await call("eat_memory")
    assert (await call("echo", "well")).text == "well"


@pytest.mark.parametrize("tool", ["not_json", "not_utf8", "nan", "lone_surrogate", "deep"])
async def test_an_answer_that_cannot_be_read_fails_its_call_at_once(call: Call, tool: str) -> None:
    with pytest.raises(Unavailable, match="broke the protocol"):
        await call(tool, timeout_s=8)


async def test_an_answer_of_another_shape_fails_its_call_at_once(call: Call) -> None:
    with pytest.raises(Unavailable, match="broke the protocol"):
        await call("wrong_structure")


@pytest.mark.parametrize("tool", ["huge_result", "endless_line"])
async def test_a_flood_is_cut_off(call: Call, tool: str) -> None:
    with pytest.raises(Unavailable, match=r"raise output_bytes in toolset\.yaml"):
        await call(tool)


async def test_a_long_result_is_truncated_and_says_so(client: SandboxClient, call: Call) -> None:
    whole = await call("long_text")
    assert (len(whole.text), whole.truncated) == (30000, False)
    reply = await client._stub().CallTool(pb.CallToolRequest(toolset="well", tool="long_text", max_output_bytes=1001), timeout=10)
    assert reply.truncated
    assert reply.contents[0].text == "ä" * 500


async def test_stray_lines_are_forgiven_and_a_flood_of_them_is_not(call: Call) -> None:
    assert (await call("echo", "hi", toolset="chatter")).text == "hi"
    with pytest.raises(Unavailable, match="has to log to stderr"):
        await call("echo", toolset="garbage")


async def test_a_server_that_never_stops_talking_is_cut_off(call: Call) -> None:
    with pytest.raises(Unavailable, match="5000 messages that nobody asked for"):
        await call("notify")


async def test_tools_that_nobody_pinned_are_refused(call: Call) -> None:
    with pytest.raises(InvalidRequest, match=r"lists other tools than .*surprise.*python -m services.sandbox.pin drift"):
        await call("echo", toolset="drift")


async def test_a_refusal_by_the_server_is_a_result_for_the_model(call: Call) -> None:
    result = await call("refuse")
    assert (result.outcome, result.text) == ("tool_error", "not today (-32602)")


async def test_other_blocks_and_large_integers_survive(call: Call) -> None:
    result = await call("image")
    assert result.content[0].type == "image"
    assert result.content[0].data is not None
    assert result.content[0].data["data"] == "aGk="
    assert result.structured == {"a": 2**53 + 1}


async def test_a_session_keeps_its_server_until_a_call_fails(call: Call) -> None:
    first = await call("python", "os.getpid()", session="kept")
    again = await call("python", "globals().setdefault('seen', 'again')", session="kept")
    assert (first.cold_start, again.cold_start) == (True, False)
    with pytest.raises(Unavailable):
        await call("exit", session="kept")
    assert (await call("echo", "fresh", session="kept")).cold_start


async def test_without_a_session_every_call_has_a_fresh_server(call: Call) -> None:
    assert (await call("echo", "a")).cold_start
    assert (await call("echo", "b")).cold_start


async def test_calls_in_one_session_share_one_start(call: Call) -> None:
    results = await asyncio.gather(*(call("echo", str(number), session="shared") for number in range(8)))
    assert [result.text for result in results] == [str(number) for number in range(8)]
    assert sum(result.cold_start for result in results) == 1


async def test_unknown_names_are_answered_with_the_known_ones(call: Call) -> None:
    with pytest.raises(NotFound, match=r"no toolset 'nope'; registered are: brief, chatter, drift"):
        await call("echo", toolset="nope")
    with pytest.raises(NotFound, match=r"'well' has no tool 'nope'; it has: daemons, deaf"):
        await call("nope")


@pytest.mark.parametrize("arguments", ["{nope", "[]", '{"text": 1}', '{"other": 1}', '{"text": NaN}', "[" * 5000])
async def test_wrong_arguments_never_reach_a_server(client: SandboxClient, arguments: str) -> None:
    with pytest.raises(InvalidRequest, match=r"the arguments of well.echo are not valid: arguments_json"):
        await client.call_tool(ToolCallSpec(toolset="well", tool="echo", arguments=arguments), timeout_s=5)


async def test_nothing_is_left_behind(service: tuple[Sandbox, SandboxClient], call: Call) -> None:
    def only_the_pools() -> bool:
        try:
            sandboxes = {child.pid for child in psutil.Process().children() if child.name() == "bwrap"}
        except psutil.NoSuchProcess:
            return False
        return sandboxes == set(server_pids(service))

    await call("echo", "one")
    # A server leaves the pool before it has ended.
    await eventually(only_the_pools, within_s=5)
