"""Servers at a URL: both eras for real, and hostile ones, whose every trick ends in a named error."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
import uvicorn
import yaml
from mcp.server import MCPServer
from mcp_types import TextContent
from opentelemetry.sdk.trace import TracerProvider

from services.sandbox.drivers.remote import MAX_STREAMS
from services.sandbox.errors import OutputTooLarge, SandboxError, ServerDied, ServerMisbehaved, ToolsDiffer, ToolsetNotReady
from services.sandbox.limits import Limits
from services.sandbox.pinning import PinnedTool
from services.sandbox.process import McpServer
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolsets import Secret, Toolset
from services.shared.contracts.errors import DeadlineExceeded, InvalidRequest, Unavailable
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from services.shared.contracts.tools import Tool
from tests.sandbox.conftest import pin, served
from tests.sandbox.hostile.remote import ANSWERS, HostileRemote
from tests.sandbox.test_faults import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.real]

EVERYTHING = Path("deploy/toolsets/everything/node_modules/@modelcontextprotocol/server-everything/dist/index.js")
# Room for a body of 128 KiB and a stream of 512 KiB.
LIMITS = Limits(output_bytes=16 * 1024, start_s=10)


def toolset_at(url: str, **entries: object) -> Toolset:
    return Toolset(name="far", directory=Path(), url=url, limits=LIMITS, **entries)


@asynccontextmanager
async def connected(toolset: Toolset, *, verify: bool = False) -> AsyncIterator[McpServer]:
    """A ready server at the toolset's URL; nothing of it is left afterwards."""
    server = McpServer(toolset, driver=None, workspace=Path(), verify=verify)
    server.start()
    try:
        await server.ready()
        yield server
    finally:
        server.kill()
        async with asyncio.timeout(3):
            await server.gone()


@pytest.fixture
async def remote() -> AsyncIterator[tuple[HostileRemote, str]]:
    hostile = HostileRemote()
    async with hostile.serving() as url:
        yield hostile, url


@asynccontextmanager
async def sdk_server(**options: object) -> AsyncIterator[str]:
    """The Python SDK's own server with one tool, served by uvicorn; its URL."""
    server = MCPServer("real")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    listener = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(uvicorn.Config(server.streamable_http_app(**options), log_config=None))
    serving.capture_signals = nullcontext
    task = asyncio.create_task(serving.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        serving.should_exit = True
        await task


@pytest.mark.parametrize("json_response", [False, True])
async def test_a_server_of_the_newer_era_is_called_and_its_tools_are_pinned(json_response: bool) -> None:
    async with sdk_server(json_response=json_response) as url:
        async with connected(toolset_at(url)) as server:
            result = await server.call("add", {"a": 2, "b": 3})
            listed = server.listed
        assert result.structured_content == {"result": 5}
        async with connected(toolset_at(url, pinned=tuple(listed)), verify=True) as server:
            assert not (await server.call("add", {"a": 2, "b": 3})).is_error
        other = dataclasses.replace(listed[0], title="Subtracts")
        with pytest.raises(ToolsDiffer, match="add changed"):
            async with connected(toolset_at(url, pinned=(other,)), verify=True):
                pass


@pytest.mark.skipif(
    not EVERYTHING.exists() or not shutil.which("node"),
    reason="needs Node.js and the toolset everything: npm ci --prefix deploy/toolsets/everything",
)
async def test_a_server_of_the_older_era_is_called() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    node = await asyncio.create_subprocess_exec(
        "node", EVERYTHING, "streamableHttp", env={"PORT": str(port), "PATH": "/usr/bin:/bin"}, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert node.stderr is not None
        async with asyncio.timeout(30):
            while b"listening" not in await node.stderr.readline():
                pass
        async with connected(toolset_at(f"http://127.0.0.1:{port}/mcp")) as server:
            result = await server.call("echo", {"message": "hello"})
            assert isinstance(result.content[0], TextContent)
            assert "hello" in result.content[0].text
    finally:
        node.kill()
        await node.wait()


@pytest.mark.parametrize(
    ("tool", "error", "said"),
    [
        ("large_event", OutputTooLarge, "raise output_bytes"),
        ("large_body", OutputTooLarge, "larger than 131072 bytes"),
        ("endless_body", OutputTooLarge, "larger than 131072 bytes"),
        ("endless_comments", OutputTooLarge, "larger than 524288 bytes"),
        ("endless_messages", ServerMisbehaved, "5000 messages that nobody asked for"),
        ("reopened", ServerDied, "broke off"),
        ("redirect_here", ServerMisbehaved, "redirects to '/other', which is not followed"),
        ("nan", ServerMisbehaved, "cannot be read"),
        ("huge_number", ServerMisbehaved, "cannot be read"),
        ("deep", ServerMisbehaved, "cannot be read"),
        ("a_bit_deep", ServerMisbehaved, "deeper than 64 levels"),
        ("surrogate", ServerMisbehaved, "cannot be read"),
        ("not_utf8", ServerMisbehaved, "cannot be read"),
        ("not_json", ServerMisbehaved, "cannot be read"),
        ("not_json_event", ServerMisbehaved, "cannot be read"),
        ("zipped", ServerMisbehaved, "compressed"),
        ("page", ServerDied, "answered HTTP 503"),
        ("unauthorized", ToolsetNotReady, "HTTP 401: give it a valid credential"),
        ("accepted", ServerMisbehaved, "answered HTTP 202 .* no answer"),
        ("plain", ServerMisbehaved, "answered HTTP 200 with text/plain"),
        ("hang_up", ServerDied, "broke off its response"),
    ],
)
async def test_what_a_server_may_not_do_is_a_named_error(
    remote: tuple[HostileRemote, str], tool: str, error: type[SandboxError], said: str
) -> None:
    async with connected(toolset_at(remote[1])) as server:
        async with asyncio.timeout(5):
            with pytest.raises(error, match=said):
                await server.call(tool, {})


async def test_a_stream_that_ends_at_once_is_not_opened_again_for_ever(remote: tuple[HostileRemote, str]) -> None:
    async with connected(toolset_at(remote[1])) as server:
        with pytest.raises(ServerDied):
            await server.call("reopened", {})
    assert remote[0].asked.count("get") == MAX_STREAMS


async def test_a_redirect_to_another_host_is_not_followed(remote: tuple[HostileRemote, str]) -> None:
    internal = HostileRemote()
    async with internal.serving() as target:
        remote[0].target = target
        async with connected(toolset_at(remote[1])) as server:
            with pytest.raises(ServerMisbehaved, match="redirects to"):
                await server.call("redirect", {})
    assert internal.asked == []


@pytest.mark.parametrize("tool", ["drip", "silent"])
async def test_an_answer_that_never_ends_ends_with_its_call(remote: tuple[HostileRemote, str], tool: str) -> None:
    async with connected(toolset_at(remote[1])) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await server.call(tool, {})
        assert not (await server.call("echo", {})).is_error


async def test_giving_up_a_call_closes_its_connection_which_is_how_the_server_hears_of_it(
    remote: tuple[HostileRemote, str],
) -> None:
    async with connected(toolset_at(remote[1])) as server:
        idle = remote[0].open
        call = asyncio.create_task(server.call("drip", {}))
        await eventually(lambda: remote[0].asked[-1] == "tools/call", within_s=3)
        call.cancel()
        await eventually(lambda: remote[0].open < max(idle, 1), within_s=3)


async def test_a_refusal_by_the_server_is_a_result(remote: tuple[HostileRemote, str]) -> None:
    async with connected(toolset_at(remote[1])) as server:
        result = await server.call("mismatch", {})
    assert result.is_error
    assert "header mismatch (-32020)" in result.content[0].text


async def test_a_list_that_changes_between_two_calls_is_noticed(remote: tuple[HostileRemote, str]) -> None:
    async with connected(toolset_at(remote[1])) as server:
        listed = tuple(server.listed)
    async with connected(toolset_at(remote[1], pinned=listed), verify=True) as server:
        assert not (await server.call("echo", {})).is_error
        remote[0].changed = True
        with pytest.raises(ToolsDiffer, match="new is new"):
            await server.call("echo", {})


async def test_a_server_that_is_not_there_is_named(free_tcp_port: int) -> None:
    with pytest.raises(ServerDied, match=rf"http://127.0.0.1:{free_tcp_port}/mcp cannot be reached"):
        async with connected(toolset_at(f"http://127.0.0.1:{free_tcp_port}/mcp")):
            pass


@pytest.mark.parametrize(
    ("status", "error"), [(b"401 No", ToolsetNotReady), (b"302 Found", ServerMisbehaved), (b"500 No", ServerDied)]
)
async def test_a_server_that_refuses_at_the_door_is_an_error_at_start(
    remote: tuple[HostileRemote, str], status: bytes, error: type[SandboxError]
) -> None:
    remote[0].status = status
    with pytest.raises(error):
        async with connected(toolset_at(remote[1])):
            pass


async def test_a_killed_server_ends_at_once_even_while_it_starts() -> None:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    deaf = await asyncio.start_server(nobody, "127.0.0.1", 0)
    server = McpServer(toolset_at(f"http://127.0.0.1:{deaf.sockets[0].getsockname()[1]}/"), driver=None, workspace=Path())
    server.start()
    await asyncio.sleep(0.1)
    server.kill()
    async with asyncio.timeout(3):
        await server.gone()
    deaf.close()


async def test_credentials_go_with_each_request_and_never_into_an_error(
    remote: tuple[HostileRemote, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("Bearer s3cret-token\n")
    secret = Secret("Authorization", "token", "header", tmp_path / "token")
    async with connected(toolset_at(remote[1], secrets=(secret,))) as server:
        await server.call("echo", {})
    assert all("authorization: bearer s3cret-token" in head for head in remote[0].headers)
    remote[0].target = "http://elsewhere.example/?from=Bearer s3cret-token"
    with pytest.raises(ServerMisbehaved) as caught:
        async with connected(toolset_at(remote[1], secrets=(secret,))) as server:
            await server.call("redirect", {})
    assert "s3cret" not in caught.value.message


async def test_the_trace_goes_on_at_the_server(remote: tuple[HostileRemote, str]) -> None:
    async with connected(toolset_at(remote[1])) as server:
        with TracerProvider().get_tracer("test").start_as_current_span("call") as span:
            await server.call("echo", {})
    assert f"{span.get_span_context().trace_id:032x}" in remote[0].metas[-1]["traceparent"]


async def test_a_toolset_at_a_url_is_served_like_any_other(
    remote: tuple[HostileRemote, str], settings: SandboxSettings, tmp_path: Path
) -> None:
    directory = tmp_path / "toolsets" / "far"
    directory.mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    secret = [{"name": "Authorization", "file": "token", "as": "header"}]
    (directory / "toolset.yaml").write_text(
        yaml.safe_dump({"url": remote[1], "secrets": secret, "limits": {"wall_s": 2, "output_bytes": 16384}})
    )
    pin(directory, [PinnedTool(Tool(name=name, parameters={"type": "object"})) for name in ANSWERS])
    own = settings.model_copy(
        update={"toolsets_dir": directory.parent, "workspace_dir": tmp_path / "files", "secrets_dir": tmp_path / "secrets"}
    )
    async with served(own) as (_, client):

        async def call(tool: str, arguments: str = "{}", session: str = "s") -> ToolResult:
            return await client.call_tool(
                ToolCallSpec(toolset="far", tool=tool, arguments=arguments, session_id=session), timeout_s=10
            )

        with pytest.raises(InvalidRequest, match="the secret Authorization cannot be read"):
            await call("echo")
        (tmp_path / "secrets" / "token").write_text("Bearer s3cret")
        assert [(await call("echo")).cold_start, (await call("echo")).cold_start] == [True, False]
        assert "authorization: bearer s3cret" in remote[0].headers[-1]
        with pytest.raises(InvalidRequest, match="must be a JSON object"):
            await call("echo", "[]")
        for tool, error in [("large_body", Unavailable), ("page", Unavailable), ("silent", DeadlineExceeded)]:
            with pytest.raises(error):
                await call(tool)
        # None of it harmed the next call, in a connection of its own.
        assert (await call("echo")).text == "hello"
        remote[0].changed = True
        with pytest.raises(InvalidRequest, match="new is new"):
            await call("echo")
