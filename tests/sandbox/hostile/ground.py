"""Where the hostile suite happens: a real runner in a process of its own, what a caller gets from it, and the four promises."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.sandbox.trajectory.store import files_in
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.tools import JsonObject
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc
from tests.sandbox.conftest import PYTHON, write_toolset
from tests.sandbox.hostile.table import CASES, Case
from tests.valkey import free_port

ROOT = Path(__file__).parents[3]
CANARY = "canary-5b1f0c77a9"
MIB = 1024 * 1024
MAX_RISE_BYTES = 64 * MIB
LIMITS: dict[str, float] = {
    "wall_s": 20, "start_s": 10, "memory_bytes": 256 * MIB, "processes": 24, "open_files": 64, "file_bytes": 8 * MIB,
    "tmp_bytes": 16 * MIB, "output_bytes": 64 * 1024,
}  # fmt: skip
# A whole turn of the newer era: no handshake, and every result says of what kind it is.
MODERN = """
def discovered():
    return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
        "ttlMs": 0, "cacheScope": "private"}
def page(mode):
    return {"resultType": "complete", "tools": listed(), "ttlMs": 0, "cacheScope": "private"}
"""


@dataclass
class Ground:
    """A runner that serves, and a bystander whose session outlives every case."""

    driver: str
    process: psutil.Process
    port: int
    log: Path
    sandbox_uid: int
    listening: int
    abstract: str
    channel: grpc.aio.Channel
    enforced: list[str] = field(default_factory=list)
    bystanders: set[int] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    waits_s: list[float] = field(default_factory=list)
    rises_bytes: dict[str, int] = field(default_factory=dict)
    _read: int = 0

    @property
    def stub(self) -> Any:
        return pb_grpc.ToolRunnerServiceStub(self.channel)

    @property
    def brief_s(self) -> float:
        """Long enough for a cold start, and no longer than one has to wait."""
        return 1.2 if self.driver == "bwrap" else 4

    def request(self, case: str, text: str = "", **fields: Any) -> pb.CallToolRequest:
        """A call of `echo` in the toolset `well`, unless `fields` say otherwise; the log knows it by `case`."""
        wall = Duration()
        wall.FromMilliseconds(int(fields.pop("wall_s", 15) * 1000))
        asked = {"toolset": "well", "tool": "echo", "arguments_json": json.dumps({"text": text}).encode(), **fields}
        return pb.CallToolRequest(call_id=case, max_wall=wall, **asked)

    async def call(self, case: str, text: str = "", tenant: str = "", **fields: Any) -> tuple[str, str]:
        """The outcome of a call, and what it says: the texts of the result, or the message of the error."""
        if "session_id" in fields:
            self.sessions.add(tenant or case)
        return await answered(self.stub.CallTool(self.request(case, text, **fields), timeout=60, metadata=told(tenant or case)))

    async def serving(self, errors: Path) -> None:
        """Waits until the self-probe has passed; `errors` is what the runner writes to stderr."""
        client = SandboxClient(f"127.0.0.1:{self.port}")
        try:
            for _ in range(300):
                if await client.ready() is None:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(f"the runner does not serve: {tail(errors)}")
        finally:
            await client.aclose()

    async def bystander(self) -> None:
        """Somebody else's call, in a session of long ago."""
        token, before = os.urandom(4).hex(), time.monotonic()
        reply = await self.stub.CallTool(
            self.request("bystander", token, session_id="old"), timeout=20, metadata=told("bystander")
        )
        self.waits_s.append(time.monotonic() - before)
        assert [content.text for content in reply.contents] == [token]
        assert reply.usage.cold_start == (not self.bystanders), "the bystander's server was ended"

    def processes(self) -> set[int]:
        """All that the runner started, and all that belongs to the sandbox's user, wherever it went."""
        found = {child.pid for child in self.process.children(recursive=True)}
        if os.geteuid() == 0:
            for process in psutil.process_iter(["uids"]):
                if (uids := process.info["uids"]) and self.sandbox_uid in uids:
                    found.add(process.pid)
        return found

    def watch(self) -> int:
        """Before a case: forgets the highest memory so far. The runner's memory now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return memory(self.process.pid, "VmRSS")

    async def check(self, before: int, case: str) -> list[JsonObject]:
        """After a case: the four promises. The log's ends of its call."""
        await self.bystander()
        for tenant in list(self.sessions):
            await self.call("end", "os._exit(0)", tenant, toolset="well", tool="run", session_id="s")
        self.sessions = set()
        rise = self.rises_bytes[case] = memory(self.process.pid, "VmHWM") - before
        assert rise <= MAX_RISE_BYTES, f"memory rose by {rise // MIB} MiB"
        deadline = time.monotonic() + 10
        while left := self.processes() - self.bystanders:
            assert time.monotonic() < deadline, f"left behind: {[command(pid) for pid in left]}"
            await asyncio.sleep(0.02)
        return await self._ends(case, deadline)

    async def _ends(self, case: str, deadline: float) -> list[JsonObject]:
        while True:
            rows = [json.loads(line) for path in files_in(self.log) for line in path.read_bytes().splitlines()][self._read :]
            starts = [row["seq"] for row in rows if row["event"] == "start"]
            ends = [row for row in rows if row["event"] == "end"]
            if len(starts) == len(ends):
                break
            assert time.monotonic() < deadline, "calls without an end in the log"
            await asyncio.sleep(0.02)
        assert sorted(starts) == sorted(row["started"] for row in ends), "a call with two ends"
        self._read += len(rows)
        assert CANARY not in str(rows)
        return [row for row in ends if row["call_id"] == case]


def told(tenant: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a tenant, who may be called like a case."""
    return (("agentflux-tenant", name_of(tenant)),)


def name_of(case: str) -> str:
    """A case's name as far as it can be one of a tenant or a toolset."""
    return re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-")[:60]


async def answered(call: Any) -> tuple[str, str]:
    """What came of an RPC."""
    try:
        reply = await call
    except asyncio.CancelledError:
        return "CANCELLED", ""
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            detail.Unpack(info)
        return f"{error.code().name} {info.reason}".strip(), error.details() or ""
    what = "tool_error" if reply.outcome == pb.OUTCOME_TOOL_ERROR else "OK"
    return what, ("truncated: " if reply.truncated else "") + "".join(content.text for content in reply.contents)


def memory(pid: int, which: str) -> int:
    """Bytes, as /proc says."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def tail(file: Path) -> str:
    return file.read_text()[-2000:]


def command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:200]
    except psutil.Error:
        return f"{pid}"


def toolset_of(case: Case) -> str:
    """The toolset that a case calls."""
    if case.start:
        return "modern" if case.start == "modern" else f"start-{name_of(case.name)}"
    return case.toolset or "well"


def write_toolsets(root: Path, *, runsc: bool) -> None:
    """`well`, `keeper` of a secret, `modern`, and one for each case with a start of its own."""
    own = {**LIMITS, "start_s": 30.0} if runsc else LIMITS
    starts = {toolset_of(case): case for case in CASES if case.start and case.start != "modern"}
    write_toolset(root / "well", command=[PYTHON, "/toolset/server.py", "well"], limits=own)
    write_toolset(root / "modern", command=[PYTHON, "/toolset/server.py", "well", MODERN], limits=own)
    secret = [{"name": "TOKEN", "file": "token", "as": "environment"}]
    write_toolset(root / "keeper", command=[PYTHON, "/toolset/server.py", "well"], limits=own, secrets=secret)
    for name, case in starts.items():
        limits = {**own, "start_s": 4 if runsc else 1} if case.toolset == "brief" else own
        write_toolset(root / name, command=[PYTHON, "/toolset/server.py", "well", case.start], limits=limits)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def runner(driver: str, folder: Path, uid: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The service as operators start it."""
    (folder / "secrets").mkdir()
    (folder / "secrets" / "token").write_text(CANARY)
    settings = {
        "PORT": port, "DRIVER": driver, "TOOLSETS_DIR": folder / "toolsets", "WORKSPACE_DIR": folder / "own" / "workspace",
        "SECRETS_DIR": folder / "secrets", "TRAJECTORY_TEXT": "true", "SANDBOX_UID": uid, "PROBE_INTERVAL_S": 3600,
        "DRAIN_TIMEOUT_S": 0,
    }  # fmt: skip
    environment = {f"AGENTFLUX_SANDBOX_{key}": str(value) for key, value in settings.items()}
    environment = {**os.environ, **environment, "AGENTFLUX_CANARY": CANARY}
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.sandbox"], cwd=ROOT, env=environment, stdout=errors, stderr=errors
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def ground(driver: str, folder: Path) -> AsyncIterator[Ground]:
    """A runner with `driver`, and what on the host it must not reach: a port and an abstract socket."""
    write_toolsets(folder / "toolsets", runsc=driver == "runsc")
    # A user that nobody else on the machine is, so that no process of the sandbox can hide.
    uid = 61000 + os.getpid() % 2000 * 2 + (driver == "runsc")
    name, port = f"agentflux-hostile-{uid}", free_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_UNIX) as abstract,
        runner(driver, folder, uid, port) as process,
    ):
        abstract.bind(f"\0{name}")
        abstract.listen()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            there = Ground(
                driver, psutil.Process(process.pid), port, folder / "own" / "trajectories", uid, listening.getsockname()[1], name,
                channel,
            )  # fmt: skip
            await there.serving(folder / "stderr")
            there.enforced = list((await there.stub.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=10)).enforced)
            await there.bystander()
            there.bystanders = there.processes()
            yield there
