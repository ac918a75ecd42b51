"""What the platform hears over HTTP: life, readiness with its reason, and that the sandbox is leaving while calls finish."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from services.sandbox.app import running
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.execution import ToolCallSpec
from tests.valkey import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]

SLOW = ToolCallSpec(toolset="well", tool="python", arguments='{"text": "__import__(\'time\').sleep(1.5)"}', session_id="s")


@pytest.fixture
def own(settings: SandboxSettings, tmp_path: Path) -> SandboxSettings:
    """The common toolsets, in a service of the test's own that answers over HTTP and leaves slowly."""
    return settings.model_copy(update={"workspace_dir": tmp_path / "files", "metrics_port": free_port(), "drain_timeout_s": 5.0})


async def test_a_sandbox_that_cannot_isolate_lives_and_says_why_it_is_not_ready(own: SandboxSettings) -> None:
    broken = own.model_copy(update={"bwrap": Path("/nonexistent/bwrap")})
    async with running(broken), httpx.AsyncClient(base_url=f"http://127.0.0.1:{own.metrics_port}") as http:
        assert (await http.get("/livez")).status_code == 200
        unready = await http.get("/readyz")
        assert unready.status_code == 503
        assert "/nonexistent/bwrap" in unready.json()["checks"]["sandbox"]
        assert (await http.get("/metrics")).headers["content-encoding"] == "gzip"
        assert (await http.post("/mcp")).status_code == 404, "there are no tools here"


async def test_while_calls_finish_it_says_that_it_leaves(own: SandboxSettings) -> None:
    said = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{own.metrics_port}") as http:
        leaving = asyncio.Event()

        async def listen() -> None:
            await leaving.wait()
            for path in ("/readyz", "/livez", "/metrics"):
                said.append((await http.get(path)).status_code)

        listener = asyncio.create_task(listen())
        async with running(own) as sandbox:
            assert (await http.get("/readyz")).json() == {"status": "ready", "checks": {"sandbox": "ok"}}
            client = SandboxClient(f"127.0.0.1:{sandbox.server.port}")
            call = asyncio.create_task(client.call_tool(SLOW, timeout_s=10))
            while "agentflux_sandbox_servers 1.0" not in (await http.get("/metrics")).text:  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.05)
            leaving.set()
        assert (await call).outcome == "ok"
        await listener
        await client.aclose()
    assert said == [503, 200, 200]


async def test_a_port_that_is_taken_is_named(own: SandboxSettings) -> None:
    async with running(own):
        another = own.model_copy(update={"workspace_dir": own.workspace_dir.parent / "other", "trajectory": "off"})
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{own.metrics_port} for HTTP"):
            async with running(another):
                pass
