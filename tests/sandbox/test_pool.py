"""Servers for calls on the real parts: who shares, who waits, who is refused, what is started before anybody asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.sandbox.app import Sandbox
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc
from tests.sandbox.conftest import LIMITS, PYTHON, served, write_toolset
from tests.sandbox.test_faults import alive, eventually, tree_of

pytestmark = [pytest.mark.anyio, pytest.mark.real]

COMMAND = [PYTHON, "/toolset/server.py", "well"]
# How many such calls this very server has had.
ATTENDED = "sys.__dict__.setdefault('calls', []).append(1) or len(sys.calls)"

Ask = Callable[..., Awaitable[pb.CallToolResponse]]


@pytest.fixture(scope="module")
def own_toolsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile server with each scope, with a spare one, and one that exits at start."""
    root = tmp_path_factory.mktemp("pool") / "toolsets"
    for scope in ("call", "session", "tenant"):
        write_toolset(root / scope, command=COMMAND, limits=LIMITS, scope=scope)
    write_toolset(root / "shared", command=COMMAND, limits=LIMITS, scope="shared", workspace=False)
    write_toolset(root / "ready", command=COMMAND, limits=LIMITS, warm=1)
    write_toolset(root / "exit", command=[PYTHON, "/toolset/server.py", "exit"], limits=LIMITS)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="module")
def own_settings(own_toolsets: Path, tmp_path_factory: pytest.TempPathFactory) -> SandboxSettings:
    """Two places, and two deaths until a crash loop is assumed."""
    return SandboxSettings(
        port=0,
        toolsets_dir=own_toolsets,
        workspace_dir=tmp_path_factory.mktemp("pool") / "workspace",
        drain_timeout_s=0,
        max_sessions=3,
        queue_share=200,
        crash_limit=2,
    )


def changed(settings: SandboxSettings, **values: int) -> SandboxSettings:
    """The settings of a service beside that one: a log has one writer."""
    return settings.model_copy(update={**values, "trajectory": "off"})


@pytest.fixture(scope="module")
async def pool(own_settings: SandboxSettings, anyio_backend: str) -> AsyncIterator[tuple[Sandbox, SandboxClient]]:
    """The service with these settings."""
    async with served(own_settings) as pair:
        yield pair


@pytest.fixture(scope="module")
def ask(pool: tuple[Sandbox, SandboxClient]) -> Ask:
    """`await ask("session", "echo", "hi", tenant="ada")`."""
    return asking(pool[1])


def asking(client: SandboxClient) -> Ask:
    """Calls a tool as a tenant."""

    async def ask(
        toolset: str, tool: str, text: str = "", *, tenant: str = "ada", session: str = "1", wall_s: float = 20
    ) -> pb.CallToolResponse:
        wall = Duration()
        wall.FromMilliseconds(int(wall_s * 1000))
        request = pb.CallToolRequest(
            toolset=toolset,
            tool=tool,
            arguments_json=json.dumps({"text": text}).encode(),
            session_id=session,
            max_wall=wall,
        )
        metadata = (("agentflux-tenant", tenant),)
        reply = await pb_grpc.ToolRunnerServiceStub(client._channel()).CallTool(request, timeout=wall_s + 1, metadata=metadata)
        assert isinstance(reply, pb.CallToolResponse)
        return reply

    return ask


async def text_of(reply: Awaitable[pb.CallToolResponse]) -> str:
    return (await reply).contents[0].text


async def refusal(call: Awaitable[object]) -> tuple[str, str, float]:
    """Reason, message and seconds until a retry of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return info.reason, str(caught.value.details()), retry.retry_delay.ToMilliseconds() / 1000


def waiting(sandbox: Sandbox) -> float:
    """Calls in the queue."""
    return sandbox.metrics.registry.get_sample_value("agentflux_sandbox_waiting") or 0


async def test_two_tenants_with_the_same_session_id_never_share(ask: Ask) -> None:
    assert await text_of(ask("session", "python", ATTENDED, session="same", tenant="ada")) == "1"
    assert await text_of(ask("session", "python", ATTENDED, session="same", tenant="bob")) == "1"
    assert await text_of(ask("session", "python", ATTENDED, session="same", tenant="ada")) == "2"


async def test_a_tenants_sessions_share_where_the_scope_says_so(ask: Ask) -> None:
    assert await text_of(ask("tenant", "python", ATTENDED, session="1", tenant="carl")) == "1"
    assert await text_of(ask("tenant", "python", ATTENDED, session="2", tenant="carl")) == "2"
    assert await text_of(ask("tenant", "python", ATTENDED, session="1", tenant="dora")) == "1"


async def test_in_scope_shared_everybody_meets_in_one_server(ask: Ask) -> None:
    assert await text_of(ask("shared", "python", ATTENDED, tenant="carl")) == "1"
    assert await text_of(ask("shared", "python", ATTENDED, tenant="dora", session="2")) == "2"


async def test_in_scope_call_not_even_a_session_shares(ask: Ask) -> None:
    assert [await text_of(ask("call", "python", ATTENDED)) for _ in range(2)] == ["1", "1"]


async def test_200_calls_on_two_places_all_get_their_own_answer_and_no_tenant_starves(own_settings: SandboxSettings) -> None:
    finished: list[str] = []
    async with served(changed(own_settings, max_sessions=2)) as (sandbox, client):
        ask = asking(client)
        busy = [asyncio.ensure_future(ask("session", "hang", session=str(number))) for number in range(2)]
        await eventually(lambda: len(sandbox.pool.servers()) == 2, within_s=5)

        async def one(tenant: str, number: int) -> None:
            token = f"{tenant}-{number}"
            assert await text_of(ask("tenant", "echo", token, tenant=tenant, wall_s=60)) == token
            finished.append(tenant)

        counts = {"ada": 130, "bob": 60, "eve": 10}
        calls = [asyncio.ensure_future(one(tenant, number)) for tenant, count in counts.items() for number in range(count)]
        await eventually(lambda: waiting(sandbox) == 200, within_s=10)
        for call in busy:
            call.cancel()
        await asyncio.gather(*calls)
    assert len(finished) == 200
    # The smallest tenant asked last, and waited for its turns, not for the end of the others' lines.
    assert max(place for place, tenant in enumerate(finished) if tenant == "eve") < 100


async def test_a_call_that_gets_no_server_in_its_time_is_told_that_it_was_not_started(
    ask: Ask, pool: tuple[Sandbox, SandboxClient]
) -> None:
    for number in range(3):
        await ask("session", "echo", session=f"h{number}")
    hanging = [asyncio.ensure_future(ask("session", "hang", session=f"h{number}")) for number in range(3)]
    await asyncio.sleep(0.2)
    reason, said, retry_s = await refusal(ask("session", "echo", "late", wall_s=0.3))
    assert (reason, retry_s) == ("SANDBOX_BUSY", 1)
    assert "it was not started" in said
    patient = asyncio.ensure_future(ask("session", "echo", "soon", session="w"))
    gives_up = asyncio.ensure_future(ask("session", "echo", "never", session="g"))
    await asyncio.sleep(0.2)
    for call in (gives_up, *hanging):
        call.cancel()
    assert (await patient).contents[0].text == "soon"
    await eventually(lambda: waiting(pool[0]) == 0, within_s=1)


async def test_without_room_in_the_queue_a_call_is_refused_at_once(own_settings: SandboxSettings) -> None:
    async with served(changed(own_settings, max_sessions=1, queue_size=0)) as (sandbox, client):
        ask = asking(client)
        hanging = asyncio.ensure_future(ask("session", "hang"))
        await eventually(lambda: any(server.is_ready for server in sandbox.pool.servers()), within_s=5)
        reason, said, retry_s = await refusal(ask("session", "echo", session="2"))
        assert (reason, retry_s) == ("SANDBOX_BUSY", 1)
        assert "every server is at work, and 0 calls are waiting already (AGENTFLUX_SANDBOX_QUEUE_SIZE)" in said
        hanging.cancel()


async def test_a_call_that_is_cancelled_while_it_gets_its_server_leaves_the_place_free(own_settings: SandboxSettings) -> None:
    async with served(changed(own_settings, max_sessions=1)) as (sandbox, client):
        toolset = sandbox.toolsets.get("session")

        async def second() -> None:
            async with sandbox.pool.server(toolset, "ada", "2", wall_s=20):
                raise AssertionError("it was cancelled before this")

        async with sandbox.pool.server(toolset, "ada", "1", wall_s=20):
            unlucky = asyncio.ensure_future(second())
            await asyncio.sleep(0)
        # The place was given to it just now, and it has not heard of it yet.
        unlucky.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unlucky
        assert await text_of(asking(client)("session", "echo", "free", session="3")) == "free"


async def test_a_spare_server_is_taken_by_the_next_session_and_replaced(own_settings: SandboxSettings) -> None:
    async with served(changed(own_settings, max_sessions=2)) as (sandbox, client):
        ask = asking(client)
        await eventually(lambda: [server.is_ready for server in sandbox.pool.servers()] == [True], within_s=3)
        [spare] = sandbox.pool.servers()
        assert not (await ask("ready", "echo")).usage.cold_start
        await eventually(lambda: [server.is_ready for server in sandbox.pool.servers()] == [True, True], within_s=3)
        assert await text_of(ask("ready", "echo", "again")) == "again"
        taken = {"toolset": "ready", "server": "own"}
        assert sandbox.metrics.registry.get_sample_value("agentflux_sandbox_servers_taken_total", taken) == 1
        # Whoever needs the place gets it: a spare server is nobody's.
        assert (await ask("session", "echo")).usage.cold_start
        assert {server.toolset.name for server in sandbox.pool.servers() if server.is_sound} == {"ready", "session"}
        assert spare.is_sound


async def test_a_session_gets_a_fresh_server_after_so_many_calls(own_settings: SandboxSettings) -> None:
    async with served(changed(own_settings, max_calls=2)) as (_, client):
        ask = asking(client)
        assert [await text_of(ask("session", "python", ATTENDED)) for _ in range(3)] == ["1", "2", "1"]


async def test_a_changed_toolset_gets_new_servers_and_the_old_ones_finish_their_calls(
    ask: Ask, pool: tuple[Sandbox, SandboxClient], own_toolsets: Path
) -> None:
    await ask("session", "echo", session="idle")
    slow = asyncio.ensure_future(ask("session", "python", "time.sleep(2.5) or 'finished'", session="busy"))
    old = {server for server in pool[0].pool.servers() if server.toolset.name == "session"}
    await asyncio.sleep(0.5)
    file = own_toolsets / "session" / "toolset.yaml"
    file.write_text(file.read_text() + "description: changed\n")
    assert (await ask("session", "echo", session="busy")).usage.cold_start
    assert (await slow).contents[0].text == "finished"
    await eventually(lambda: not old & set(pool[0].pool.servers()), within_s=3)


async def test_a_crash_loop_is_refused_at_once_and_shown(ask: Ask, pool: tuple[Sandbox, SandboxClient]) -> None:
    for _ in range(2):
        assert (await refusal(ask("exit", "echo")))[0] == "SERVER_DIED"
    reason, said, retry_s = await refusal(ask("exit", "echo", tenant="bob"))
    assert reason == "CRASH_LOOP"
    assert 0 < retry_s <= 1
    assert "servers of toolset 'exit' died 2 times in a row, so no call is run for another" in said
    assert "no licence file found" in said
    [info] = [info for info in await pool[1].list_toolsets() if info.name == "exit"]
    assert not info.ready
    assert "died 2 times in a row" in info.reason
    await asyncio.sleep(retry_s)
    assert (await refusal(ask("exit", "echo")))[0] == "SERVER_DIED"
    reason, _, retry_s = await refusal(ask("exit", "echo"))
    assert (reason, retry_s > 1) == ("CRASH_LOOP", True)


async def test_a_tenant_who_kills_servers_is_stopped_and_others_go_on(ask: Ask, pool: tuple[Sandbox, SandboxClient]) -> None:
    for _ in range(2):
        assert (await refusal(ask("session", "exit", tenant="mallory")))[0] == "SERVER_DIED"
    reason, said, _ = await refusal(ask("session", "echo", tenant="mallory"))
    assert reason == "CRASH_LOOP"
    assert "in calls of tenant 'mallory'" in said
    assert await text_of(ask("session", "echo", "fine", tenant="ada")) == "fine"
    await asyncio.sleep(1)
    assert await text_of(ask("session", "echo", "better now", tenant="mallory")) == "better now"


@pytest.mark.parametrize("tenant", ["", ".hidden", "a/b", "x" * 65, "a b"])
async def test_a_tenant_that_is_no_name_is_refused(ask: Ask, tenant: str) -> None:
    _, said, _ = await refusal(ask("session", "echo", tenant=tenant))
    assert f"with 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit; it is {tenant!r}" in said


async def test_a_session_id_that_is_too_long_is_refused(ask: Ask) -> None:
    _, said, _ = await refusal(ask("session", "echo", session="x" * 257))
    assert said == "session_id has 257 characters, and at most 256 are possible"


async def test_a_cancelled_call_is_cancelled_in_the_server_too_which_others_may_finish_with(
    ask: Ask, pool: tuple[Sandbox, SandboxClient]
) -> None:
    before = set(pool[0].pool.servers())
    await ask("session", "echo", session="c")
    [server] = set(pool[0].pool.servers()) - before
    tree = tree_of(server.pid or 0)
    calls = [asyncio.ensure_future(ask("session", "wait", session="c")) for _ in range(2)]
    while await text_of(ask("session", "python", "len(sys.modules['__main__'].WAITING)", session="c")) != "2":
        pass
    calls[0].cancel()
    assert (await calls[1]).contents[0].text == "another call was cancelled"
    await eventually(lambda: not alive(tree), within_s=0.5)
    assert (await ask("session", "echo", session="c")).usage.cold_start
