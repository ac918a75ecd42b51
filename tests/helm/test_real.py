"""What the chart runs in the cluster, run here: the test pod's program against a gateway, Valkey with its configuration."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import redis

from deploy.compose.certificates import write_certificates
from services.sandbox.app import main
from tests.deploy.running import Service, eventually, started
from tests.helm.helm import render
from tests.helm.manifests import EVERYTHING, of_kind, pod_of
from tests.stack import running_stack
from tests.valkey import free_port, valkey_binary

KEY = "af-a-key-for-the-test-of-the-chart"


async def run_test_pod(url: str, key: str, folder: Path) -> tuple[int, str]:
    """Exit status and output of the program of `helm test`."""
    pod = pod_of(render(), "test")
    (folder / "api-key").write_text(key, "utf-8")
    environment = {**pod.env, "GATEWAY_URL": url, "API_KEY_FILE": str(folder / "api-key")}
    command = [sys.executable, *pod.container["command"][1:]]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def test_helm_test_makes_a_tool_call_or_says_why_it_could_not(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY, "utf-8")
    async with running_stack(api_key_file=tmp_path / "key") as stack:
        status, said = await run_test_pod(stack.url, KEY, tmp_path)
        assert (status, said.startswith("base called get_weather with {")) == (0, True), said
        status, said = await run_test_pod(stack.url, "another key", tmp_path)
        assert (status, "401" in said) == (1, True), said


@pytest.mark.real
def test_valkey_takes_its_command_line_and_the_url_that_the_services_get(tmp_path: Path) -> None:
    objects = render()
    secret = {
        name: base64.b64decode(each).decode() for name, each in of_kind(objects, "Secret")["agentflux-valkey"]["data"].items()
    }
    (tmp_path / "valkey.conf").write_text(secret["valkey.conf"], "utf-8")
    program, config, *arguments = pod_of(objects, "valkey").container["command"]
    assert (program, config) == ("valkey-server", "/secrets/valkey/valkey.conf")
    port = free_port()
    arguments = [argument.replace("/tmp", str(tmp_path)) for argument in arguments]
    command = [valkey_binary(), str(tmp_path / "valkey.conf"), *arguments, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis.from_url(secret["redis-url"].replace("agentflux-valkey:6379", f"127.0.0.1:{port}"))
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert client.config_get("maxmemory") == {"maxmemory": str(256 * 1024**2)}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert client.config_get("save") == {"save": ""}
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
            client.close()
        finally:
            server.terminate()


@pytest.mark.real
@pytest.mark.parametrize("certificates", [False, True], ids=["plain", "tls"])
def test_the_sandbox_answers_its_probes_with_and_without_certificates(certificates: bool, tmp_path: Path) -> None:
    write_certificates(tmp_path)
    (tmp_path / "toolsets").mkdir()
    tls = {"sandbox": {"tls": EVERYTHING["sandbox"]["tls"]}} if certificates else {}
    pod = pod_of(render(tls), "sandbox")
    assert ("AGENTFLUX_SANDBOX_TLS_CLIENT_CA" in pod.env) is certificates
    metrics = free_port()
    # As in the pod, but for folders, ports and addresses, and for the driver: the pod's asks for a container around it.
    elsewhere = {
        "TOOLSETS_DIR": tmp_path / "toolsets", "WORKSPACE_DIR": tmp_path / "files", "TRAJECTORY_DIR": tmp_path / "log",
        "HOST": "127.0.0.1", "PORT": "{port}", "METRICS_PORT": metrics, "DRIVER": "bwrap",
    }  # fmt: skip
    env = {name: value.replace("/secrets/tls", str(tmp_path)) for name, value in pod.env.items() if name.startswith("AGENTFLUX_")}
    service = Service(main, tmp_path, {**env, **{f"AGENTFLUX_SANDBOX_{name}": str(value) for name, value in elsewhere.items()}})
    ports = {port["containerPort"]: port["name"] for port in pod.container["ports"]}
    with started(service):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = pod.container[probe]["httpGet"]
            assert ports[9034] == asked["port"]
            url = f"http://127.0.0.1:{metrics}{asked['path']}"
            eventually(lambda url=url: answers(url), unless=service.said)


def answers(url: str) -> bool:
    """Whether a kubelet would call this probe a success."""
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False
