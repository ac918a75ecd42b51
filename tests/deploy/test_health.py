"""The images' health check, against the real sandbox: with and without certificates, well and unwell."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.compose.certificates import write_certificates
from deploy.images.health import PORTS, complaint, port_of, service_of
from services.arguments.settings import ArgumentsSettings
from services.callcache.settings import CallCacheSettings
from services.engine.settings import EngineSettings
from services.gateway.settings import GatewaySettings
from services.sandbox.app import main
from services.selector.settings import SelectorSettings
from services.shared.chassis.tls import TlsFiles
from services.shared.clients.sandbox import SandboxClient
from tests.deploy.running import Service, eventually, started
from tests.valkey import free_port

ROOT = Path(__file__).parents[2]


def sandbox(folder: Path, metrics_port: int, **settings: object) -> Service:
    """The real one without toolsets, whose `/readyz` is on `metrics_port`."""
    (folder / "toolsets").mkdir()
    given = {
        "PORT": "{port}",
        "METRICS_PORT": metrics_port,
        "TOOLSETS_DIR": folder / "toolsets",
        "WORKSPACE_DIR": folder / "files",
    }
    return Service(main, folder, {f"AGENTFLUX_SANDBOX_{name}": str(value) for name, value in {**given, **settings}.items()})


async def ready(port: int, tls: TlsFiles | None) -> str | None:
    """What a caller is told over gRPC."""
    client = SandboxClient(f"localhost:{port}", tls=tls)
    try:
        return await client.ready()
    finally:
        await client.aclose()


def test_the_health_check_finds_what_runs() -> None:
    assert service_of(b"/sbin/docker-init\0--\0python\0-m\0services.gateway\0") == "gateway"
    assert service_of(b"python\0-m\0services.engine\0") == "engine"
    with pytest.raises(ValueError, match="sleep 60"):
        service_of(b"sleep\00060\0")


def test_the_health_check_knows_where_the_services_answer() -> None:
    http = {
        "gateway": GatewaySettings, "selector": SelectorSettings, "arguments": ArgumentsSettings,
        "callcache": CallCacheSettings, "engine": EngineSettings,
    }  # fmt: skip
    assert {name: port_of(name, {}) for name in http} == {
        name: settings.model_fields["port"].default for name, settings in http.items()
    }
    assert PORTS.keys() == {*http, "sandbox"}
    assert port_of("gateway", {"AGENTFLUX_GATEWAY_PORT": "9030"}) == 9030
    # The image sets it, as its own default is that nobody answers.
    image = (ROOT / "deploy" / "images" / "sandbox.Dockerfile").read_text()
    assert f"AGENTFLUX_SANDBOX_METRICS_PORT={port_of('sandbox', {})} " in image


def test_nobody_there_is_unhealthy() -> None:
    assert "nobody answers" in (complaint(free_port()) or "")


@pytest.mark.real
def test_a_sandbox_whose_callers_need_certificates_is_healthy_to_who_has_none(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    files = TlsFiles(*(tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")))
    tls = {"TLS_CERTIFICATE": files.certificate, "TLS_KEY": files.key, "TLS_CLIENT_CA": files.ca}
    where = free_port()
    with started(service := sandbox(tmp_path, where, **tls)):
        eventually(lambda: complaint(where) is None, unless=service.said)
        # What the health check does not ask: only who shows a certificate gets through.
        assert asyncio.run(ready(service.port, files)) is None
        assert "cannot be reached" in (asyncio.run(ready(service.port, None)) or "")


@pytest.mark.real
def test_a_sandbox_that_cannot_isolate_is_unhealthy_and_says_why(tmp_path: Path) -> None:
    where = free_port()
    with started(service := sandbox(tmp_path, where, BWRAP="/nonexistent/bwrap")):
        said = eventually(lambda: (said := complaint(where)) and "nobody answers" not in said and said, unless=service.said)
    assert said.startswith("/readyz says 503")
    assert "/nonexistent/bwrap" in said
