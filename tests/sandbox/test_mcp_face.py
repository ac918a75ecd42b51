"""The MCP face: real MCP clients list and call sandboxed tools, and who may not come stays outside."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import mcp_types as types
import pytest
from mcp import Client, MCPError

from services.sandbox.app import Sandbox
from services.sandbox.mcp_face.app import create_face, serving
from services.sandbox.pinning import PinnedTool
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.tools import Tool
from tests.sandbox.conftest import pin, served, write_toolset
from tests.sandbox.test_faults import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.real]

TOKEN, OTHER = "a" * 32, "b" * 32
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}}  # fmt: skip
HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
NODE_SDK = Path("deploy/toolsets/filesystem/node_modules/@modelcontextprotocol/sdk")


@asynccontextmanager
async def faced(sandbox: Sandbox, settings: SandboxSettings) -> AsyncIterator[str]:
    """The face of a running sandbox; its URL."""
    async with serving(create_face(sandbox.runner, settings), settings, settings.mcp_port) as port:
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="module")
async def face(service: tuple[Sandbox, SandboxClient], settings: SandboxSettings, anyio_backend: str) -> AsyncIterator[str]:
    async with faced(service[0], settings) as url:
        yield url


def text_of(result: types.CallToolResult) -> str:
    return "".join(part.text for part in result.content if isinstance(part, types.TextContent))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_either_era_lists_and_calls_the_tools_of_all_toolsets(face: str, mode: str) -> None:
    async with Client(face, mode=mode) as client:
        assert client.protocol_version == {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == sorted(names)
        assert {"well__echo", "brief__echo"} <= set(names)
        assert text_of(await client.call_tool("well__echo", {"text": "hello"})) == "hello"
        assert text_of(await client.call_tool("well__python", {"text": "os.getuid()"})) == "65532"


async def test_the_tools_of_one_toolset_have_their_own_names_at_its_own_path(face: str) -> None:
    async with Client(f"{face}/well") as client:
        assert "echo" in {tool.name for tool in (await client.list_tools()).tools}
        assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"
    async with Client(f"{face}/nothing") as client:
        with pytest.raises(MCPError, match="there is no toolset 'nothing'"):
            await client.list_tools()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_the_newer_era_allows_one_toolset_takes_no_tools_from_clients_of_the_older_one(
    face: str, settings: SandboxSettings, mode: str
) -> None:
    newer = settings.toolsets_dir / "newer"
    shutil.copytree(settings.toolsets_dir / "well", newer)
    rows = PinnedTool(Tool(name="rows", description="Rows.", parameters={"type": "object"}), output_schema={"type": "array"})
    pin(newer, [rows])
    try:
        async with Client(face, mode=mode) as client:
            listed = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        assert listed["newer__rows"] == ({"type": "array"} if mode == "auto" else None)
        assert "well__echo" in listed
    finally:
        shutil.rmtree(newer)


async def test_lists_say_how_long_they_stay_fresh(face: str) -> None:
    async with Client(face) as client:
        listed = await client.list_tools()
    assert (listed.ttl_ms, listed.cache_scope) == (60_000, "private")


async def test_what_fails_is_told_to_the_model_as_a_result_with_the_reason(face: str) -> None:
    async with Client(f"{face}/well") as client:
        for tool, arguments, reason in [
            ("echo", {"text": 5}, "ARGUMENTS_INVALID"),
            ("exit", {}, "SERVER_DIED"),
            ("nan", {}, "SERVER_MISBEHAVED"),
            ("huge_result", {}, "OUTPUT_TOO_LARGE"),
        ]:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert (result.meta or {})["agentflux/reason"] == reason
        refused = await client.call_tool("refuse", {})
        assert refused.is_error
        assert "agentflux/reason" not in (refused.meta or {})
        with pytest.raises(MCPError, match="unknown tool 'nope'") as caught:
            await client.call_tool("nope", {})
        assert caught.value.code == types.INVALID_PARAMS


async def test_blocks_of_every_kind_arrive_as_they_were(face: str) -> None:
    async with Client(f"{face}/well") as client:
        [image] = (await client.call_tool("image", {})).content
    assert isinstance(image, types.ImageContent)


async def test_calls_that_name_a_session_share_a_server_and_others_do_not(face: str) -> None:
    async with Client(f"{face}/well") as client:

        async def remembers(**more: object) -> bool:
            await client.call_tool("python", {"text": "open('/tmp/note', 'w').write('x')"}, **more)
            return "True" in text_of(await client.call_tool("python", {"text": "os.path.exists('/tmp/note')"}, **more))

        assert await remembers(meta={"agentflux/session": "mine"})
        assert not await remembers()
        for strange, said in [("x" * 257, "a string of 257"), (5, "not 5")]:
            with pytest.raises(MCPError, match=said):
                await client.call_tool("echo", {}, meta={"agentflux/session": strange})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_gives_up_ends_the_server(service: tuple[Sandbox, SandboxClient], face: str, mode: str) -> None:
    pool = service[0].pool
    before = set(pool.servers())
    async with Client(f"{face}/well", mode=mode) as client:
        call = asyncio.create_task(client.call_tool("hang", {}))
        await eventually(lambda: any(server.pid for server in set(pool.servers()) - before), within_s=5)
        call.cancel()
        await eventually(lambda: not set(pool.servers()) - before, within_s=5)


async def test_one_broken_toolset_does_not_take_the_others_away(settings: SandboxSettings, tmp_path: Path) -> None:
    write_toolset(tmp_path / "toolsets" / "good", command=["/bin/sh"])
    write_toolset(tmp_path / "toolsets" / "two__parts", command=["/bin/sh"])
    (write_toolset(tmp_path / "toolsets" / "broken", command=["/bin/sh"]) / "tools.json").write_text("{")
    other = settings.model_copy(update={"toolsets_dir": tmp_path / "toolsets", "workspace_dir": tmp_path / "files"})
    async with served(other) as (sandbox, _), faced(sandbox, other) as url, Client(url) as client:
        assert {tool.name.partition("__")[0] for tool in (await client.list_tools()).tools} == {"good"}


async def test_only_a_token_of_the_file_opens_the_door_and_the_file_may_change(
    service: tuple[Sandbox, SandboxClient], settings: SandboxSettings, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# comment\nalice {TOKEN}\n")
    async with faced(service[0], settings.model_copy(update={"mcp_tokens_file": file})) as url, httpx.AsyncClient() as http:

        async def status(token: str) -> int:
            headers = {**HEADERS, **({"authorization": f"Bearer {token}"} if token else {})}
            return (await http.post(url, json=LIST, headers=headers)).status_code

        assert [await status(token) for token in ("", "wrong", OTHER, TOKEN)] == [401, 401, 401, 200]
        file.write_text(f"bob {OTHER}\n# the token of alice is gone\n")
        assert [await status(token) for token in (TOKEN, OTHER)] == [401, 200]


async def test_a_page_that_made_its_own_name_point_here_is_refused(face: str) -> None:
    async with httpx.AsyncClient() as http:
        for header, value, status in [
            ("host", "evil.example", 421),
            ("origin", "http://evil.example", 403),
            ("origin", "http://localhost:1", 200),
            ("mcp-method", "tools/call", 400),
        ]:
            answer = await http.post(face, json=LIST, headers={**HEADERS, header: value})
            assert (value, answer.status_code) == (value, status)
        assert answer.json()["error"]["code"] == -32020


async def test_bodies_are_bounded_and_must_be_messages(face: str) -> None:
    async with httpx.AsyncClient() as http:
        headers = {**HEADERS, "content-type": "application/json"}
        for body, status in [
            (b" " * (4 * 1024 * 1024 + 1), 413),
            (b"{", 400),
            (b"[" * 100_000, 400),
            (json.dumps([LIST]).encode(), 400),
            (b"\xff", 400),
        ]:
            answer = await http.post(face, content=body, headers=headers)
            assert (body[:1], answer.status_code) == (body[:1], status)
        assert (await http.get(face, headers=HEADERS)).status_code == 405
        assert (await http.get(face.removesuffix("/mcp") + "/readyz")).json()["status"] == "ready"


@pytest.mark.parametrize(
    ("content", "said"), [("", "has no token"), ("alice short", "at least 32 characters"), (None, "cannot be read")]
)
def test_a_token_file_that_cannot_be_used_is_an_error_at_start(
    service: tuple[Sandbox, SandboxClient], settings: SandboxSettings, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "tokens").write_text(content)
    with pytest.raises(Unavailable, match=said):
        create_face(service[0].runner, settings.model_copy(update={"mcp_tokens_file": tmp_path / "tokens"}))


def test_beyond_loopback_there_have_to_be_tokens(service: tuple[Sandbox, SandboxClient], settings: SandboxSettings) -> None:
    with pytest.raises(Unavailable, match="AGENTFLUX_SANDBOX_MCP_TOKENS_FILE"):
        create_face(service[0].runner, settings.model_copy(update={"host": "0.0.0.0"}))


NODE_PROGRAM = """
    import { Client } from "SDK/dist/esm/client/index.js";
    import { StreamableHTTPClientTransport } from "SDK/dist/esm/client/streamableHttp.js";
    const client = new Client({ name: "test", version: "1" });
    await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[1])));
    const { tools } = await client.listTools();
    const result = await client.callTool({ name: "filesystem__read_text_file", arguments: { path: "/workspace/note" } });
    console.log(JSON.stringify({ listed: tools.map((tool) => tool.name), text: result.content[0].text }));
    await client.close();
""".replace("SDK", str(NODE_SDK.resolve()))


@pytest.mark.skipif(
    not NODE_SDK.exists() or not shutil.which("node"),
    reason="needs Node.js and the filesystem toolset: npm ci --prefix deploy/toolsets/filesystem",
)
async def test_both_official_sdks_read_a_file_with_the_sandboxed_filesystem_server(tmp_path: Path) -> None:
    toolsets = tmp_path / "toolsets"
    toolsets.mkdir()
    (toolsets / "filesystem").symlink_to(NODE_SDK.parents[2].resolve())
    shipped = SandboxSettings(port=0, toolsets_dir=toolsets, workspace_dir=tmp_path / "files", drain_timeout_s=0)
    async with served(shipped) as (sandbox, _), faced(sandbox, shipped) as url:
        (tmp_path / "files" / "note").write_text("from the sandbox")
        async with Client(url) as client:
            result = await client.call_tool("filesystem__read_text_file", {"path": "/workspace/note"})
            assert result.structured_content == {"content": "from the sandbox"}
        node = await asyncio.create_subprocess_exec(
            "node", "--input-type=module", "-e", NODE_PROGRAM, url, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        async with asyncio.timeout(60):
            said, _ = await node.communicate()
    answer = json.loads(said)
    assert answer["text"] == "from the sandbox"
    assert "filesystem__list_directory" in answer["listed"]
