"""The images themselves, run by testcontainers: the call cache with Valkey, and the sandbox with the filesystem server.

Skipped, loudly, where no Docker daemon answers or the images are not built (`make images`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from deploy.compose.build import VALKEY
from deploy.compose.docker import VERSION
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec

SERVICE, SANDBOX = f"agentflux/service:{VERSION}", f"agentflux/sandbox:{VERSION}"
WAIT_S = 60.0


def missing() -> str | None:
    """What these tests lack here; None when they can run."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, timeout=30).returncode:
        return "NO DOCKER DAEMON ANSWERS"
    absent = [
        image
        for image in (SERVICE, SANDBOX, VALKEY)
        if subprocess.run([docker, "inspect", image], capture_output=True).returncode
    ]
    return f"NO IMAGE {', '.join(absent)} (run `make images ARGS=--stand-in`)" if absent else None


@pytest.fixture(scope="module", autouse=True)
def _docker() -> None:
    if reason := missing():
        pytest.skip(f"{reason}: the container images were NOT tested")
    # Its helper container comes from a registry, and is given the Docker socket; every container here is stopped by its `with`.
    testcontainers_config.ryuk_disabled = True


def confined(image: str) -> DockerContainer:
    """A container as docker-compose.yml confines it."""
    container = DockerContainer(image).with_tmpfs_mount("/tmp", "mode=1777,size=64m")
    return container.with_kwargs(
        read_only=True, init=True, cap_drop=["ALL"], security_opt=["no-new-privileges:true"], pids_limit=512, mem_limit="1g"
    )


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, f"{what} within {WAIT_S:g} s"
        time.sleep(0.5)


def healthy(container: DockerContainer) -> bool:
    return container.exec(["python", "-m", "deploy.images.health"]).exit_code == 0


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


def test_the_call_cache_counts_in_valkey_and_says_when_valkey_is_gone(network: Network) -> None:
    valkey = DockerContainer(VALKEY).with_network(network).with_network_aliases("valkey")
    cache = (
        confined(SERVICE)
        .with_network(network)
        .with_command("python -m services.callcache")
        .with_env("AGENTFLUX_CALLCACHE_REDIS_URL", "redis://valkey:6379/0")
        .with_exposed_ports(8033)
    )
    with valkey, cache:
        url = f"http://127.0.0.1:{cache.get_exposed_port(8033)}"
        until(lambda: healthy(cache), "the call cache is not healthy")
        assert cache.exec(["id", "-u"]).output == b"65532\n"
        assert cache.exec(["touch", "/app/x"]).exit_code != 0
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        valkey.get_wrapped_container().kill()
        until(lambda: httpx.get(f"{url}/readyz").json()["status"] != "ready", "the call cache still says that all is well")


@pytest.mark.anyio
async def test_the_sandbox_lists_and_runs_the_filesystem_tools_without_a_network() -> None:
    sandbox = confined(SANDBOX).with_exposed_ports(8034)
    for volume in ("/workspace", "/var/lib/agentflux/trajectories"):
        sandbox = sandbox.with_tmpfs_mount(volume, "uid=65532,gid=65532,mode=700,size=64m")
    with sandbox:
        until(lambda: healthy(sandbox), "the sandbox is not healthy")
        client = SandboxClient(f"127.0.0.1:{sandbox.get_exposed_port(8034)}")
        try:
            names = {tool.name for tool in await client.list_tools("filesystem")}
            said = [
                await client.call_tool(
                    ToolCallSpec(toolset="filesystem", tool=tool, arguments=json.dumps(arguments), session_id="s"), timeout_s=60
                )
                for tool, arguments in (
                    ("write_file", {"path": "notes.md", "content": "hello world"}),
                    ("read_file", {"path": "notes.md"}),
                )
            ]
        finally:
            await client.aclose()
        assert "read_file" in names
        assert [result.outcome for result in said] == ["ok", "ok"], said
        assert said[1].text == "hello world"
