"""What `make up` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.plan import PORTS, LocalSettings, plan

VALKEY = Path("/usr/bin/valkey-server")


def settings(**changes: object) -> LocalSettings:
    return LocalSettings.model_validate({"run_dir": "/srv/agentflux/.run", **changes})


def test_every_service_runs_as_a_process_of_its_own() -> None:
    processes = plan(settings(), valkey=VALKEY)
    assert [process.name for process in processes] == [
        "valkey", "engine", "sandbox", "callcache", "selector", "arguments", "gateway",
    ]  # fmt: skip
    assert processes[1].argv == [sys.executable, "-m", "services.engine"]


def test_a_given_redis_is_used_and_none_is_started() -> None:
    processes = plan(settings(REDIS_URL="redis://10.0.0.5:6379/1"), valkey=None)
    assert "valkey" not in [process.name for process in processes]
    by_name = {process.name: process.env for process in processes}
    for name in ("callcache", "gateway"):
        assert by_name[name][f"AGENTFLUX_{name.upper()}_REDIS_URL"] == "redis://10.0.0.5:6379/1"


def test_without_one_callcache_and_gateway_share_the_valkey_that_is_started() -> None:
    by_name = {process.name: process.env for process in plan(settings(), valkey=VALKEY)}
    for name in ("callcache", "gateway"):
        assert by_name[name][f"AGENTFLUX_{name.upper()}_REDIS_URL"] == f"redis://127.0.0.1:{PORTS['valkey']}/0"


def test_an_offset_moves_every_port_so_that_two_deployments_fit_on_a_machine() -> None:
    first = {process.port for process in plan(settings(), valkey=VALKEY)}
    second = {process.port for process in plan(settings(port_offset=1000), valkey=VALKEY)}
    assert {port + 1000 for port in first} == second
    assert first <= set(PORTS.values())


def test_selector_arguments_and_gateway_speak_to_the_same_engine() -> None:
    by_name = {process.name: process.env for process in plan(settings(), valkey=VALKEY)}
    socket = "unix:/srv/agentflux/.run/sockets/engine.sock"
    assert by_name["engine"]["AGENTFLUX_ENGINE_VLLM_URL"] == socket
    for name in ("selector", "arguments", "gateway"):
        assert by_name[name][f"AGENTFLUX_{name.upper()}_ENGINE_URL"] == socket


def test_everyone_who_knows_adapters_reads_the_same_store() -> None:
    by_name = {process.name: process.env for process in plan(settings(), valkey=VALKEY)}
    for name in ("engine", "selector", "arguments", "gateway"):
        assert by_name[name][f"AGENTFLUX_{name.upper()}_ADAPTER_STORE"] == "/srv/agentflux/.run/adapters"


def test_a_deep_folder_gets_a_short_socket() -> None:
    socket = settings(run_dir="/home/" + "deep/" * 40).engine_socket
    assert len(str(socket)) < 108
    assert socket != settings(run_dir="/home/" + "deep/" * 41).engine_socket
