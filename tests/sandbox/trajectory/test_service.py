"""The log of a real sandbox: whole after it was killed in the middle of a call, and without the secrets that tools print."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from services.sandbox.settings import SandboxSettings
from services.sandbox.trajectory.store import files_in
from services.sandbox.trajectory.verify import verify
from services.shared.contracts.errors import DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from services.shared.contracts.execution import ToolCallSpec
from services.shared.contracts.tools import JsonObject
from tests.sandbox.conftest import LIMITS, PYTHON, served, write_toolset
from tests.sandbox.test_faults import eventually
from tests.sandbox.test_service import ROOT, free_port, ready

pytestmark = [pytest.mark.anyio, pytest.mark.real]


def rows(directory: Path) -> list[JsonObject]:
    return [json.loads(line) for path in files_in(directory) for line in path.read_bytes().splitlines()]


@contextmanager
def process(toolsets: Path, workspace: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    settings = {"PORT": port, "TOOLSETS_DIR": toolsets, "WORKSPACE_DIR": workspace}
    environment = {**os.environ, **{f"AGENTFLUX_SANDBOX_{key}": str(value) for key, value in settings.items()}}
    running = subprocess.Popen([sys.executable, "-m", "services.sandbox"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield running, port
    finally:
        running.kill()
        running.wait()


async def test_a_call_in_flight_when_the_sandbox_was_killed_is_aborted_at_its_next_start(toolsets: Path, tmp_path: Path) -> None:
    workspace, log = tmp_path / "new" / "workspace", tmp_path / "new" / "trajectories"
    with process(toolsets, workspace) as (running, port):
        client = await ready(port)
        hanging = asyncio.create_task(
            client.call_tool(ToolCallSpec(toolset="well", tool="hang", arguments="{}", call_id="hung"), timeout_s=20)
        )
        await eventually(lambda: any(row["event"] == "start" for row in rows(log)), within_s=10)
        running.kill()
        with pytest.raises(Unavailable):
            await hanging
        await client.aclose()
    assert len(verify(files_in(log)).in_flight) == 1
    with process(toolsets, workspace) as (_, port):
        client = await ready(port)
        await client.call_tool(
            ToolCallSpec(toolset="well", tool="echo", arguments='{"text": "hi"}', call_id="next"), timeout_s=20
        )
        await client.aclose()
    report = verify(files_in(log))
    assert (report.problems, report.calls, report.in_flight) == ([], 2, {})
    ends = [(row["call_id"], row["outcome"], row["reason"]) for row in rows(log) if row["event"] == "end"]
    assert ends == [("hung", "aborted", "RUNNER_DIED"), ("next", "ok", "")]


async def test_every_kind_of_call_has_its_two_records(toolsets: Path, tmp_path: Path) -> None:
    log = tmp_path / "trajectories"
    settings = SandboxSettings(
        port=0, toolsets_dir=toolsets, workspace_dir=tmp_path / "workspace", trajectory_dir=log, drain_timeout_s=0
    )
    async with served(settings) as (_, client):

        async def call(tool: str, arguments: str = "{}", toolset: str = "well") -> None:
            await client.call_tool(ToolCallSpec(toolset=toolset, tool=tool, arguments=arguments, session_id="s"), timeout_s=10)

        await call("echo", '{"text": "hi"}')
        await call("refuse")
        with pytest.raises(InvalidRequest):
            await call("echo", "[]")
        with pytest.raises(NotFound):
            await call("nope")
        with pytest.raises(NotFound):
            await call("echo", toolset="nope")
        with pytest.raises(Unavailable):
            await call("exit")
        with pytest.raises(DeadlineExceeded):
            await call("hang", toolset="brief")
        cancelled = asyncio.create_task(call("hang"))
        await eventually(lambda: sum(row["event"] == "start" for row in rows(log)) == 8, within_s=5)
        cancelled.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
            await cancelled
    report = verify(files_in(log))
    assert (report.problems, report.calls, report.in_flight) == ([], 8, {})
    ends = [(row["outcome"], row["code"], row["reason"]) for row in rows(log) if row["event"] == "end"]
    assert ends == [
        ("ok", "OK", ""),
        ("tool_error", "OK", ""),
        ("failed", "INVALID_ARGUMENT", "ARGUMENTS_INVALID"),
        ("failed", "NOT_FOUND", "TOOL_UNKNOWN"),
        ("failed", "NOT_FOUND", "TOOLSET_UNKNOWN"),
        ("failed", "UNAVAILABLE", "SERVER_DIED"),
        ("failed", "DEADLINE_EXCEEDED", "CALL_TIMED_OUT"),
        ("cancelled", "CANCELLED", "CANCELLED"),
    ]
    starts = [row for row in rows(log) if row["event"] == "start"]
    assert all(row["enforced"] and row["driver"].startswith("bwrap") for row in rows(log) if row["event"] != "open")
    assert len(starts[0]["toolset_digest"]) == len(starts[0]["tool_digest"]) == 64


async def test_a_secret_that_a_tool_prints_is_not_in_the_log(toolsets: Path, tmp_path: Path) -> None:
    canary, log = "canary-77c1d0a4e2", tmp_path / "trajectories"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text(canary)
    secret = [{"name": "API_TOKEN", "file": "token", "as": "environment"}]
    leaky = write_toolset(
        tmp_path / "toolsets" / "leaky", command=[PYTHON, "/toolset/server.py", "well"], limits=LIMITS, secrets=secret
    )
    for path in [tmp_path, leaky.parent, leaky, *leaky.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    settings = SandboxSettings(
        port=0, toolsets_dir=leaky.parent, workspace_dir=tmp_path / "workspace", secrets_dir=tmp_path / "secrets",
        trajectory_dir=log, trajectory_text=True, drain_timeout_s=0,
    )  # fmt: skip
    async with served(settings) as (_, client):
        for code in (
            "dict(os.environ)",
            "os.environ['API_TOKEN'].encode().hex()",
            "os._exit(os.write(2, os.environb[b'API_TOKEN']))",
        ):
            spec = ToolCallSpec(toolset="leaky", tool="python", arguments=json.dumps({"text": code}), session_id=canary)
            with suppress(Unavailable):
                result = await client.call_tool(spec, timeout_s=10)
                assert "canary" in result.text or canary.encode().hex() in result.text
    written = b"".join(path.read_bytes() for path in files_in(log))
    assert written.count(b"REDACTED-0") >= 3
    assert canary.encode() not in written
    assert canary.encode().hex().encode() not in written
