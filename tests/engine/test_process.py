"""The engine as an operator meets it, with a stand-in for vLLM that loads nothing and spawns as vLLM does."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import psutil
import pytest

from tests.engine.model_folder import write_model
from tests.engine.running import FAKE_VLLM, all_gone, eventually, running_engine

FAKE = {"PYTHONPATH": str(FAKE_VLLM)}


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def engine(tmp_path, model):
    with running_engine(tmp_path, model, **FAKE) as engine:
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=30)
        # The API server, the resource tracker, the engine core and its worker.
        eventually(lambda: len(engine.descendants()) >= 4, within_s=30)
        yield engine


def test_the_engine_becomes_ready_when_vllm_answers(engine):
    status = engine.status()
    assert (status["state"], status["restarts"], status["vllm_url"]) == ("ready", 0, engine.url)
    page = engine.get("/metrics/vllm")
    assert (page.text, page.headers["content-encoding"]) == ("vllm:fake 1\n", "gzip")
    assert "agentflux_engine_ready 1.0" in engine.get("/metrics").text


def test_only_this_user_may_reach_vllms_socket(engine):
    assert stat.S_IMODE(engine.socket.parent.stat().st_mode) == 0o700


def test_none_of_vllms_routes_is_behind_the_door(engine):
    for path in ("/v1/completions", "/tokenize", "/adapters", "/invocations"):
        assert httpx.post(f"http://127.0.0.1:{engine.port}{path}", json={}, trust_env=False).status_code == 404


def test_vllms_log_lines_become_records_of_ours(engine):
    record = eventually(lambda: [line for line in engine.log.read_text().splitlines() if "loaded" in line], within_s=10)[0]
    assert '"process": "Worker"' in record
    assert '"level": "info"' in record


def test_nothing_of_a_killed_vllm_is_left_and_it_is_started_again(engine):
    before = engine.descendants()
    os.kill(engine.status()["vllm_pid"], signal.SIGKILL)
    eventually(lambda: all_gone(before), within_s=10)
    eventually(lambda: engine.status()["restarts"] == 1 and engine.status()["state"] == "ready", within_s=30)
    assert "agentflux_engine_restarts_total 1.0" in engine.get("/metrics").text


def test_nothing_survives_a_kill_of_the_engine_service(engine):
    vllm = engine.descendants()
    engine.process.kill()
    eventually(lambda: all_gone(vllm), within_s=5)


def test_nothing_survives_when_every_parent_is_killed_at_once(engine):
    *parents, last = sorted(engine.descendants(), key=lambda process: process.create_time())
    for process in [engine.process, *parents]:
        process.kill()
    eventually(lambda: all_gone([last]), within_s=5)


def test_on_sigterm_vllm_drains_and_everything_ends(engine):
    vllm = engine.descendants()
    engine.process.terminate()
    engine.process.wait(timeout=30)
    assert all_gone(vllm)
    assert "drained" in engine.log.read_text()


def test_what_vllm_leaves_in_temporary_files_goes_with_it(engine):
    sockets = Path(psutil.Process(engine.status()["vllm_pid"]).environ()["VLLM_RPC_BASE_PATH"])
    (sockets / "left").touch()
    engine.process.terminate()
    engine.process.wait(timeout=30)
    assert not sockets.exists()


def test_a_vllm_that_still_loads_is_not_waited_for(tmp_path, model):
    with running_engine(tmp_path, model, **FAKE, FAKE_VLLM="hang") as engine:
        vllm = eventually(lambda: len(found := engine.descendants()) >= 2 and found, within_s=30)
        engine.process.terminate()
        # The drain alone would take fifty seconds.
        engine.process.wait(timeout=20)
        assert all_gone(vllm)


def test_a_stale_socket_is_replaced(tmp_path, model):
    (tmp_path / "sockets").mkdir()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "sockets" / "engine.sock"))
    with running_engine(tmp_path, model, **FAKE) as engine:
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=30)


def test_a_vllm_that_ends_at_start_is_told_with_its_last_error(tmp_path, model):
    with running_engine(tmp_path, model, **FAKE, FAKE_VLLM="exit") as engine:
        said = eventually(lambda: "ValueError" in engine.get("/readyz").text and engine.get("/readyz"), within_s=30)
        assert said.status_code == 503
        assert "exit code 1; its last error was: ValueError: unknown model type" in said.json()["checks"]["vllm"]


def test_a_vllm_that_never_answers_is_killed_and_started_again(tmp_path, model):
    with running_engine(tmp_path, model, **FAKE, FAKE_VLLM="hang", AGENTFLUX_ENGINE_START_TIMEOUT_S="3") as engine:
        first = eventually(engine.descendants, within_s=30)
        eventually(lambda: engine.status().get("restarts"), within_s=30)
        assert all_gone(first)


def ends_with(engine) -> str:
    assert engine.process.wait(timeout=30) == 1
    return engine.log.read_text()


def test_a_missing_model_ends_the_service_with_the_reason(tmp_path):
    with running_engine(tmp_path, tmp_path / "nowhere") as engine:
        assert f"engine: the model folder {tmp_path / 'nowhere'} is not there" in ends_with(engine)


def test_a_taken_port_ends_the_service_with_the_reason(tmp_path, model):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with running_engine(tmp_path, model, AGENTFLUX_ENGINE_PORT=str(port)) as engine:
            said = ends_with(engine)
    assert f"127.0.0.1:{port} cannot be had (Address already in use)" in said


def test_a_second_engine_on_the_same_socket_ends_with_the_reason(tmp_path, model, engine):
    (tmp_path / "second").mkdir()
    with running_engine(tmp_path / "second", model, **FAKE, AGENTFLUX_ENGINE_VLLM_URL=engine.url) as second:
        assert f"another engine answers at {engine.socket}" in ends_with(second)
    assert engine.get("/readyz").status_code == 200


def test_a_model_that_is_spoilt_while_vllm_runs_is_named_at_the_next_start(tmp_path, model, engine):
    (model / "config.json").unlink()
    os.kill(engine.status()["vllm_pid"], signal.SIGKILL)
    said = eventually(lambda: "config.json is missing" in engine.get("/readyz").text, within_s=20)
    assert said
    assert engine.process.status() != psutil.STATUS_ZOMBIE
