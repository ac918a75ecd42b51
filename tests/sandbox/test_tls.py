"""Who may call over the network: certificates that say who it is, a Unix socket, or this machine alone."""

from __future__ import annotations

import asyncio
import datetime
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.sandbox.app import Sandbox, address_of, running, tls_of
from services.sandbox.settings import SandboxSettings
from services.shared.chassis.tls import TlsFiles
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import InvalidRequest, Unavailable
from services.shared.contracts.execution import ToolCallSpec
from tests.sandbox.conftest import write_toolset

pytestmark = [pytest.mark.anyio, pytest.mark.real]

ECHO = ToolCallSpec(toolset="well", tool="echo", arguments='{"text": "hello"}')


class Authority:
    """A CA in a directory; it makes certificates there."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        built = self._builder(self._name, self._key, days=1).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def files(self, name: str, *names: x509.GeneralName, ca: Path | None, days: int = 1) -> TlsFiles:
        """A certificate for `names`, or with a common name alone, that ends in `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, days=days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate, private = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return TlsFiles(certificate, private, ca)

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


LOCALHOST = x509.DNSName("localhost")


@pytest.fixture
def own(settings: SandboxSettings, tmp_path: Path) -> SandboxSettings:
    """The common toolsets, in a service of the test's own."""
    return settings.model_copy(update={"workspace_dir": tmp_path / "files"})


@pytest.fixture
def secured(own: SandboxSettings, authority: Authority) -> SandboxSettings:
    files = authority.files("server", LOCALHOST, ca=None)
    return own.model_copy(update={"tls_certificate": files.certificate, "tls_key": files.key, "tls_client_ca": authority.file})


@asynccontextmanager
async def client_of(sandbox: Sandbox, tls: TlsFiles | None, *, tenant: str = "") -> AsyncIterator[SandboxClient]:
    client = SandboxClient(f"localhost:{sandbox.server.port}", tenant=tenant, tls=tls)
    try:
        yield client
    finally:
        await client.aclose()


async def tenant_seen(sandbox: Sandbox, tls: TlsFiles | None, monkeypatch: pytest.MonkeyPatch, *, tenant: str = "") -> str:
    """Whose call the runner believes it to be."""
    seen = []
    call = sandbox.runner.call

    async def spy(asked):
        seen.append(asked.tenant)
        return await call(asked)

    monkeypatch.setattr(sandbox.runner, "call", spy)
    async with client_of(sandbox, tls, tenant=tenant) as client:
        assert (await client.call_tool(ECHO, timeout_s=10)).text == "hello"
    return seen[0]


async def test_the_certificate_says_whose_call_it_is_whatever_the_metadata_says(
    secured: SandboxSettings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(secured) as sandbox:
        for files, tenant in [
            (authority.files("c1", x509.DNSName("alice"), ca=authority.file), "alice"),
            (authority.files("c2", x509.UniformResourceIdentifier("spiffe://x.org/tenant/bob"), ca=authority.file), "bob"),
            (authority.files("carol", ca=authority.file), "carol"),
        ]:
            assert await tenant_seen(sandbox, files, monkeypatch, tenant="mallory") == tenant
        strange = authority.files("c4", x509.UniformResourceIdentifier("spiffe://x.org/a%20b"), ca=authority.file)
        async with client_of(sandbox, strange) as client:
            with pytest.raises(InvalidRequest, match="the client certificate is for 'a%20b', which cannot be a tenant"):
                await client.call_tool(ECHO, timeout_s=10)


async def test_who_shows_no_good_certificate_is_told_so(secured: SandboxSettings, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with running(secured) as sandbox:
        for files, said in [
            (None, ""),
            (TlsFiles(None, None, authority.file), ""),
            (stranger.files("mallory", ca=authority.file), ""),
            (authority.files("late", ca=authority.file, days=-1), ""),
            (authority.files("fooled", ca=stranger.file), "CERTIFICATE_VERIFY_FAILED"),
        ]:
            async with client_of(sandbox, files) as client:
                with pytest.raises(Unavailable, match=f"the sandbox at localhost:.* cannot be reached .*{said}"):
                    await client.list_toolsets()


async def test_a_server_whose_certificate_is_over_or_for_another_name_is_not_believed(
    own: SandboxSettings, authority: Authority
) -> None:
    mine = authority.files("me", ca=authority.file)
    for files, said in [
        (authority.files("old", LOCALHOST, ca=None, days=-1), "certificate has expired"),
        (authority.files("other", x509.DNSName("elsewhere"), ca=None), "Hostname Verification Check failed"),
    ]:
        with_it = own.model_copy(update={"tls_certificate": files.certificate, "tls_key": files.key})
        async with running(with_it) as sandbox, client_of(sandbox, mine) as client:
            with pytest.raises(Unavailable, match=said):
                await client.list_toolsets()


async def test_new_files_count_without_a_restart_on_both_sides(
    secured: SandboxSettings, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.files("alice", ca=authority.file)
    async with running(secured) as sandbox, client_of(sandbox, files) as client:
        await client.list_toolsets()
        # Half a change: the old certificate goes on being used.
        secured.tls_key.write_bytes(b"nothing")
        assert await tenant_seen(sandbox, files, monkeypatch) == "alice"
        other = Authority(tmp_path, "other")
        other.files("server", LOCALHOST, ca=None)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            async with client_of(sandbox, files) as fresh:
                await fresh.list_toolsets()
        files.ca.write_bytes(authority.file.read_bytes() + other.file.read_bytes())
        await client.list_toolsets()
        assert await tenant_seen(sandbox, files, monkeypatch) == "alice"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tls_key": None}, "TLS needs both AGENTFLUX_SANDBOX_TLS_CERTIFICATE and AGENTFLUX_SANDBOX_TLS_KEY"),
        ({"tls_key": "authority.pem"}, "cannot be used with the key"),
        ({"tls_client_ca": "server.key"}, "server.key cannot be used"),
        ({"tls_certificate": "nothing.pem"}, "No such file"),
    ],
)
async def test_files_that_cannot_be_used_are_an_error_at_start(
    secured: SandboxSettings, tmp_path: Path, change: dict[str, str | None], said: str
) -> None:
    broken = secured.model_copy(update={name: tmp_path / file if file else None for name, file in change.items()})
    with pytest.raises(Unavailable, match=said):
        async with running(broken):
            pass


async def test_a_unix_socket_is_for_its_owner_and_group(own: SandboxSettings, tmp_path: Path) -> None:
    async with running(own.model_copy(update={"socket": tmp_path / "s.sock"})):
        assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o660
        client = SandboxClient(f"unix:{tmp_path / 's.sock'}")
        assert (await client.call_tool(ECHO, timeout_s=10)).text == "hello"
        await client.aclose()


def test_beyond_loopback_callers_need_certificates_unless_the_network_is_said_to_be_private(tmp_path: Path) -> None:
    for changes, refused in [
        ({}, True),
        ({"tls_certificate": tmp_path, "tls_key": tmp_path}, True),
        ({"tls_client_ca": tmp_path}, False),
        ({"private_network": True}, False),
        ({"host": "localhost"}, False),
        ({"socket": tmp_path / "s"}, False),
    ]:
        settings = SandboxSettings(**{"host": "0.0.0.0", **changes})
        if refused:
            with pytest.raises(Unavailable, match="AGENTFLUX_SANDBOX_PRIVATE_NETWORK"):
                address_of(settings)
        else:
            assert address_of(settings)
    assert tls_of(SandboxSettings()) is None


async def test_each_toolset_has_a_health_of_its_own(own: SandboxSettings, tmp_path: Path) -> None:
    write_toolset(tmp_path / "toolsets" / "good", command=["/bin/sh"])
    lacking = write_toolset(tmp_path / "toolsets" / "lacking", command=["/bin/sh"], requires=["x"])
    async with (
        running(own.model_copy(update={"toolsets_dir": tmp_path / "toolsets"})) as sandbox,
        grpc.aio.insecure_channel(f"127.0.0.1:{sandbox.server.port}") as channel,
    ):

        async def becomes(name: str, serving: bool) -> None:
            wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=f"toolset/{name}"))
            async with asyncio.timeout(10):
                async for answer in watch:
                    if answer.status == wanted:
                        return

        await becomes("good", True)
        await becomes("lacking", False)
        (lacking / "x").touch()
        await becomes("lacking", True)
        os.rename(lacking / "toolset.yaml", lacking / "old.yaml")
        await becomes("lacking", False)
