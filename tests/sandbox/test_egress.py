"""The way out of a sandbox: the rules, the proxy on a small internet of our own, and both together from the inside."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.sandbox.drivers.driver import Driver, SandboxSpec
from services.sandbox.drivers.proxy import EgressLimits, EgressProxy, server_name
from services.sandbox.egress import Destination, Refused, asked, destination, is_public
from services.sandbox.limits import Limits
from services.sandbox.metrics import SandboxMetrics
from tests.sandbox.drivers import DRIVERS, made

PUBLIC = "93.184.215.14"
API = Destination("api.example.com", 443)


@pytest.mark.parametrize("text", ["api.example.com:443", "API.Example.com:443", "a-b.example.co:8443"])
def test_a_destination_is_a_full_name_and_a_port(text: str) -> None:
    assert str(destination(text)) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "api.example.com", "api.example.com:0", "api.example.com:65536", "api.example.com:0443", "localhost:443",
        "*.example.com:443", "a b.example.com:1",
        "127.0.0.1:443", "2130706433:443", "0x7f.1:443", "127.1:80", "[::1]:443", "::1:443", "api.example.com.:443",
        "api.example.com:443\r\nx", "user@api.example.com:443", "-a.example.com:443", "exämple.com:443", ":443", "",
    ],
)  # fmt: skip
def test_an_address_or_a_pattern_is_no_destination(text: str) -> None:
    with pytest.raises(ValueError, match="is no destination"):
        destination(text)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET https://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "not_connect"),
        (b"CONNECT api.example.com:443 HTTP/1.1 \r\n\r\n", "not_connect"),
        (b"CONNECT  api.example.com:443 HTTP/1.1\r\n\r\n", "not_connect"),
        (b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", "not_a_name"),
        (b"CONNECT [fd00:ec2::254]:80 HTTP/1.1\r\n\r\n", "not_a_name"),
        (b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n", "not_listed"),
        (b"CONNECT api.example.com:22 HTTP/1.1\r\n\r\n", "not_listed"),
    ],
)
def test_only_connect_to_what_is_listed_is_answered(head: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(head, frozenset({API}))
    assert refused.value.reason == reason


def test_what_is_listed_may_be_asked_for() -> None:
    assert asked(b"CONNECT API.example.com:443 HTTP/1.1\r\nHost: whatever\r\n\r\n", frozenset({API})) == API


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0",
        "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1",
        "2001:db8::1", "fec0::1", "no address",
    ],
)  # fmt: skip
def test_no_list_can_open_a_private_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


def hello(name: str | None) -> bytes:
    """The first bytes of a TLS client that asks for `name`."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def test_the_name_in_a_tls_hello_is_read_once_it_is_complete() -> None:
    said = hello("API.example.com")
    assert server_name(said) == "api.example.com"
    assert server_name(said[:40]) is None


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 40, hello(None)])
def test_what_names_nobody_is_refused(said: bytes) -> None:
    with pytest.raises(Refused, match="TLS that names its host"):
        server_name(said)


@dataclass
class Internet:
    """One TLS server that answers to every public address, and a resolver. It remembers what was connected to."""

    port: int
    names: dict[str, list[str]] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    metrics: SandboxMetrics = field(default_factory=SandboxMetrics)

    async def resolve(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            raise OSError(8, "Name or service not known")
        return self.names[host]

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connected.append(address)
        return await asyncio.open_connection("127.0.0.1", self.port)

    def proxy(self, **limits: float) -> EgressProxy:
        bounds = EgressLimits(**limits)  # type: ignore[arg-type]
        return EgressProxy(self.metrics, limits=bounds, resolve=self.resolve, connect=self.connect)

    def refused(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("agentflux_sandbox_egress_refused_total", {"reason": reason}) or 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("internet") / "api.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=api.example.com", "-addext", "subjectAltName=DNS:api.example.com"]
    subprocess.run([*command, *names, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
async def internet(certificate: Path) -> AsyncIterator[Internet]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Internet(port, {"api.example.com": [PUBLIC], "evil.example.com": [PUBLIC]})


@asynccontextmanager
async def talking(
    proxy: EgressProxy, *network: str
) -> AsyncIterator[Callable[[bytes], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]]]:
    """`await say(b"CONNECT …")`: a new connection to the proxy, and the first line of its answer."""
    async with proxy.door(network or ("api.example.com:443",)) as path:

        async def say(head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(head)
            return reader, writer, await asyncio.wait_for(reader.readline(), 10)

        yield say


CONNECT = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"


@pytest.mark.anyio
async def test_a_tunnel_reaches_the_address_that_was_checked(internet: Internet) -> None:
    async with talking(internet.proxy()) as say:
        reader, writer, status = await say(CONNECT)
        assert status == b"HTTP/1.1 200 Connection established\r\n"
        writer.write(hello("api.example.com"))
        await reader.readline()
        # A TLS handshake record: the server's answer to the hello.
        assert (await asyncio.wait_for(reader.readexactly(1), 10)) == b"\x16"
        writer.close()
    assert internet.connected == [PUBLIC]


@pytest.mark.anyio
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"], [PUBLIC, "10.0.0.1"], []])
async def test_a_listed_name_that_points_inside_is_refused(internet: Internet, addresses: list[str]) -> None:
    internet.names["api.example.com"] = addresses
    async with talking(internet.proxy()) as say:
        _, writer, status = await say(CONNECT)
        writer.close()
    assert status == b"HTTP/1.1 403 Forbidden\r\n"
    assert internet.connected == []
    assert internet.refused("private_address") == 1


@pytest.mark.anyio
async def test_a_name_is_resolved_once_so_it_cannot_point_elsewhere_a_moment_later(internet: Internet) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def changing(host: str, port: int) -> list[str]:
        return answers.pop(0)

    proxy = EgressProxy(internet.metrics, resolve=changing, connect=internet.connect)
    async with talking(proxy) as say:
        _, writer, status = await say(CONNECT)
        writer.close()
    assert b" 200 " in status
    assert (internet.connected, len(answers)) == ([PUBLIC], 1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (b"CONNECT evil.example.com:443 HTTP/1.1\r\n\r\n", b"403", "not_listed"),
        (b"CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", b"403", "not_a_name"),
        (b"GET http://169.254.169.254/latest HTTP/1.1\r\n\r\n", b"405", "not_connect"),
        (b"CONNECT api.example.com:443 HTTP/1.1\r\n" + b"x" * 20_000, b"400", "bad_request"),
        (b"CONNECT api.example.com:443 HTTP/1.1\r\n", b"504", "timed_out"),
    ],
)
async def test_each_refusal_has_a_status_and_is_counted(internet: Internet, head: bytes, status: bytes, reason: str) -> None:
    async with talking(internet.proxy(open_s=0.3)) as say:
        _, writer, said = await say(head)
        writer.close()
    assert said.split()[1] == status
    assert internet.refused(reason) == 1
    assert internet.connected == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "reason"), [(hello("evil.example.com"), "other_name"), (b"SSH-2.0-x\r\n", "no_tls"), (b"", "timed_out")]
)
async def test_a_tunnel_carries_nothing_but_tls_for_its_own_host(internet: Internet, said: bytes, reason: str) -> None:
    async with talking(internet.proxy(open_s=0.5)) as say:
        reader, writer, _ = await say(CONNECT)
        writer.write(said)
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert b"\x16\x03" not in rest
    assert internet.refused(reason) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(("limits", "reason"), [({"tunnel_bytes": 100}, "too_much"), ({"tunnel_s": 0.2}, "too_long")])
async def test_a_tunnel_is_bounded(internet: Internet, limits: dict[str, float], reason: str) -> None:
    async with talking(internet.proxy(**limits)) as say:
        reader, writer, _ = await say(CONNECT)
        writer.write(hello("api.example.com"))
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert internet.refused(reason) == 1


@pytest.mark.anyio
async def test_too_many_at_once_are_turned_away(internet: Internet) -> None:
    async with talking(internet.proxy(tunnels=1)) as say:
        await say(CONNECT)
        _, _, status = await say(CONNECT)
    assert b" 503 " in status
    assert internet.refused("too_many") == 1


@pytest.mark.anyio
async def test_the_doors_of_a_killed_service_are_cleared(
    internet: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Above the largest pid that there can be.
    (tmp_path / "agentflux-egress-4194305-x").mkdir()
    async with internet.proxy().door(("api.example.com:443",)) as path:
        assert os.listdir(tmp_path) == [path.parent.parent.name]
    assert os.listdir(tmp_path) == []


async def inside(driver: Driver, tmp_path: Path, script: str, *network: str) -> str:
    """What a shell script inside a sandbox prints."""
    spec = SandboxSpec(("/bin/sh", "-c", script), None, Limits(processes=64), toolset=tmp_path, network=network)
    child = await driver.start(spec)
    try:
        return (await asyncio.wait_for(child.stdout.read(), 30)).decode()
    finally:
        child.kill()
        await child.wait()


@pytest.mark.anyio
@pytest.mark.real
@pytest.mark.parametrize("name", DRIVERS)
async def test_from_inside_the_listed_host_answers_and_no_other(
    name: str, internet: Internet, tmp_path: Path, certificate: Path
) -> None:
    driver = await made(name, tmp_path / "workspace", egress=internet.proxy())
    toolset = tmp_path / "toolset"
    toolset.mkdir()
    (toolset / "ca.crt").write_bytes(certificate.with_suffix(".crt").read_bytes())
    for path in (tmp_path, toolset):
        os.chmod(path, 0o755)
    os.chmod(toolset / "ca.crt", 0o644)
    curl = "curl -s --max-time 10 --cacert /toolset/ca.crt -w ' %{http_connect}\\n'"
    trusted = "ssl.create_default_context(cafile='/toolset/ca.crt')"
    read = f"import ssl, urllib.request as u; print(u.urlopen('https://api.example.com/', context={trusted}).read())"
    script = f"""
        READ="{read}"
        {curl} https://api.example.com/
        {curl} https://evil.example.com/
        {curl} https://169.254.169.254/
        python3 -c "$READ" 2>&1 | tail -n 1
        curl -s --noproxy '*' --max-time 3 http://{PUBLIC}/; echo "direct $?"
    """
    said = (await inside(driver, toolset, script, "api.example.com:443")).splitlines()
    assert said == ["hello 200", " 403", " 403", "b'hello'", "direct 7"]
    assert internet.connected == [PUBLIC, PUBLIC]


@pytest.mark.anyio
@pytest.mark.real
@pytest.mark.parametrize("name", DRIVERS)
async def test_without_a_list_there_is_no_way_out(name: str, internet: Internet, tmp_path: Path) -> None:
    driver = await made(name, tmp_path / "workspace", egress=internet.proxy())
    said = await inside(
        driver, tmp_path, "ls /run/egress 2>&1; env | grep -ic proxy; curl -s --max-time 3 https://api.example.com/; echo $?"
    )
    assert said.split()[-2:] == ["0", "6"]
    assert internet.connected == []
