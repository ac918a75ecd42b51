"""A certificate between gateway and sandbox that ends: both say which one and since when, and new files are enough."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.sandbox.app import main
from services.shared.chassis.tls import TlsFiles, Validity, server_credentials
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.execution import ToolCallSpec
from tests.deploy.running import Service, eventually, started
from tests.observability.promql import families_of
from tests.sandbox.conftest import LIMITS, PYTHON, write_toolset
from tests.sandbox.test_tls import LOCALHOST, Authority
from tests.shared.serving import served
from tests.stack import NOBODY
from tests.valkey import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]

ECHO = ToolCallSpec(toolset="well", tool="echo", arguments='{"text": "hello"}', session_id="s")
DAY_S = 86_400.0
# X.509 counts whole seconds; a call has to fit in, its server's start included.
SHORT_S = 4.0
ENDS = "agentflux_certificate_not_after_timestamp_seconds"


def ends_at(metrics: str) -> dict[str, float]:
    """The end of each file's certificates, from a page of metrics."""
    lines = (line for line in metrics.splitlines() if line.startswith(f"{ENDS}{{"))
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


async def checks(url: str) -> tuple[int, str]:
    """Status code of the gateway's readiness, and what it says of the sandbox."""
    async with httpx.AsyncClient() as http:
        reply = await http.get(f"{url}/readyz", timeout=10)
    return reply.status_code, reply.json()["checks"]["sandbox"]


async def well_again(url: str) -> None:
    """Returns when the gateway says that the sandbox is; gRPC tries to connect again every two seconds."""
    async with asyncio.timeout(15):
        while True:
            if (await checks(url))[1] == "ok":
                return
            await asyncio.sleep(0.1)


async def test_an_expired_certificate_is_named_with_its_end_by_both_sides_and_new_files_are_enough(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    theirs = authority.files("server", LOCALHOST, ca=None)
    ours = authority.files("gateway", ca=authority.file)
    write_toolset(tmp_path / "toolsets" / "well", command=[PYTHON, "/toolset/server.py", "well"], limits=LIMITS)
    for path in [tmp_path / "toolsets", *(tmp_path / "toolsets").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    metrics_port = free_port()
    settings = {
        "AGENTFLUX_SANDBOX_PORT": "{port}",
        "AGENTFLUX_SANDBOX_METRICS_PORT": str(metrics_port),
        "AGENTFLUX_SANDBOX_TOOLSETS_DIR": str(tmp_path / "toolsets"),
        "AGENTFLUX_SANDBOX_WORKSPACE_DIR": str(tmp_path / "files"),
        "AGENTFLUX_SANDBOX_TLS_CERTIFICATE": str(theirs.certificate),
        "AGENTFLUX_SANDBOX_TLS_KEY": str(theirs.key),
        "AGENTFLUX_SANDBOX_TLS_CLIENT_CA": str(authority.file),
    }
    sandbox = Service(main, tmp_path, settings)
    target = f"localhost:{sandbox.port}"
    asking = GatewaySettings(
        base_model="base", engine_url=NOBODY, selector_url=NOBODY, arguments_url=NOBODY, callcache_url=NOBODY,
        toolsets_dir=tmp_path / "toolsets", sandbox_target=target,
        sandbox_certificate=ours.certificate, sandbox_key=ours.key, sandbox_ca=ours.ca,
    )  # fmt: skip
    gateway = create_app(asking)
    connected, fresh = SandboxClient(target, tls=ours), SandboxClient(target, tls=ours)
    with started(sandbox):
        async with served(gateway) as url, httpx.AsyncClient() as http:
            await asyncio.to_thread(eventually, lambda: "sandbox listening" in sandbox.said(), unless=sandbox.said)
            short = time.time() + SHORT_S
            authority.files("server", LOCALHOST, ca=None, days=SHORT_S / DAY_S)
            assert await connected.ready() is None
            assert (await connected.call_tool(ECHO, timeout_s=10)).text == "hello"
            page = (await http.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
            assert families_of(page)[ENDS] == "gauge"
            assert ends_at(page)[str(theirs.certificate)] == pytest.approx(short, abs=1.5)
            assert {str(theirs.certificate), str(authority.file)} == ends_at(page).keys()
            assert {str(ours.certificate), str(ours.ca)} == ends_at((await http.get(f"{url}/metrics")).text).keys()

            await asyncio.sleep(max(0.0, short + 1.5 - time.time()))
            # Whoever is connected goes on; nobody can connect any more.
            assert (await connected.call_tool(ECHO, timeout_s=10)).text == "hello"
            with pytest.raises(Unavailable, match="certificate has expired"):
                await fresh.list_toolsets()
            ended = f"{datetime.fromtimestamp(short, UTC):%Y-%m-%dT%H:%M}"
            code, says = await checks(url)
            assert f"the certificate of {target} ended at {ended[:-3]}" in says
            assert code == 503, "its engine is nobody"
            assert f"the certificate {theirs.certificate} ended at" in sandbox.said()

            authority.files("server", LOCALHOST, ca=None)
            await well_again(url)
            assert (await fresh.list_toolsets())[0].ready
            page = (await http.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
            assert ends_at(page)[str(theirs.certificate)] > short + DAY_S / 2

            # The other direction: the gateway's own certificate, which the sandbox refuses without a word.
            authority.files("gateway", ca=authority.file, days=-1)
            mine = f"the certificate {ours.certificate} ended at {datetime.fromtimestamp(time.time() - DAY_S, UTC):%Y-%m-%dT}"
            assert mine in (await checks(url))[1]
            with pytest.raises(Unavailable, match="cannot be reached") as refused:
                await fresh.list_toolsets()
            assert mine in refused.value.message
            authority.files("gateway", ca=authority.file)
            await well_again(url)
            assert (await fresh.call_tool(ECHO, timeout_s=10)).text == "hello"
            await connected.aclose()
            await fresh.aclose()


async def test_a_service_that_starts_with_an_expired_certificate_says_so_at_once(tmp_path: Path) -> None:
    files = Authority(tmp_path, "authority").files("server", LOCALHOST, ca=None, days=-1)
    with capture_logs() as logs:
        server_credentials(files)
    assert [record["log_level"] for record in logs] == ["error"]
    assert f"the certificate {files.certificate} ended at" in logs[0]["error"]


def test_a_certificate_of_tomorrow_makes_one_look_at_the_clock(tmp_path: Path) -> None:
    tomorrow = Validity("server.pem", datetime.fromtimestamp(time.time() + DAY_S, UTC), datetime(2999, 1, 1, tzinfo=UTC))
    assert "server.pem counts from" in (tomorrow.complaint() or "")
    assert "is this machine's clock right?" in (tomorrow.complaint() or "")


def test_of_several_cas_one_is_enough_and_of_a_chain_every_link_counts(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "authority"), Authority(tmp_path, "another")
    ended = old.files("ended", ca=None, days=-1).certificate
    both = tmp_path / "both.pem"
    both.write_bytes(ended.read_bytes() + new.file.read_bytes())
    assert TlsFiles(None, None, both).complaint() is None
    assert f"{both} ended at" in (TlsFiles(both, None, None).complaint() or "")
    both.write_text("nothing")
    assert list(TlsFiles(both, None, tmp_path / "gone").validities()) == []
