"""What the sandbox adds: starts, calls and throughput beside the plain MCP client, which starts the same server unprotected.

Both sides take turns, so that whoever else is busy on the machine disturbs both. The server answers at once, so a call's time
is the way there and back. Prints a table and writes it to build/bench/sandbox.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp import Client, StdioServerParameters

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.sandbox.app import create_driver, wait_without_threads
from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.limits import Limits
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec, ToolResult
from tests.sandbox.conftest import HOSTILE, LIMITS, PYTHON, write_toolset
from tests.valkey import free_port

STARTS, CALLS, COLD, ACQUISITIONS, SPARES = 200, 3000, 15, 100, 4
CLIENTS, SERVERS, LOAD_S = 16, 4, 15.0
# Official servers, where they are installed; each starts an interpreter of its own.
COLD_TOOLSETS = {"time": "get_current_time", "everything": "echo", "filesystem": "list_allowed_directories"}
COLD_ARGUMENTS = {"get_current_time": {"timezone": "UTC"}, "echo": {"message": "hi"}}

Row = dict[str, object]


def main() -> None:
    """Measures, prints, writes."""
    progress = Progress()
    wait_without_threads()
    with tempfile.TemporaryDirectory(prefix="agentflux-bench-") as folder:
        os.chmod(folder, 0o755)
        rows = asyncio.run(_measured(Path(folder), progress))
    for row in rows:
        met = "" if row["met"] is None else "met" if row["met"] else "MISSED"
        progress.show(f"{row['what']:52} {row['found']:>9.3f} {row['unit']:8} goal {row['goal']:>7} {met}")
    target = REPOSITORY / "build" / "bench" / "sandbox.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


async def _measured(folder: Path, progress: Progress) -> list[Row]:
    toolsets = folder / "toolsets"
    command = [PYTHON, "/toolset/server.py", "well"]
    write_toolset(toolsets / "echo", command=command, limits=LIMITS)
    write_toolset(toolsets / "spare", command=command, limits=LIMITS, warm=SPARES)
    for name in COLD_TOOLSETS:
        if (REPOSITORY / "deploy" / "toolsets" / name / "tools.json").exists():
            (toolsets / name).symlink_to(REPOSITORY / "deploy" / "toolsets" / name)
    for path in [toolsets, *toolsets.glob("*"), *toolsets.glob("*/*.*")]:
        if REPOSITORY not in path.resolve().parents:
            path.chmod(0o755 if path.is_dir() else 0o644)
    settings = SandboxSettings(toolsets_dir=toolsets, workspace_dir=folder / "workspace", port=free_port(), log_level="warning")
    with _service(settings):
        client = SandboxClient(f"127.0.0.1:{settings.port}")
        while await client.ready() is not None:  # noqa: ASYNC110 (another process; there is no event to wait for)
            await asyncio.sleep(0.1)
        rows = []
        for what, measure in {
            "starts": lambda: _starts(settings),
            "cold calls": lambda: _cold(client, progress),
            "warm calls": lambda: _warm(client),
            "spare servers": lambda: _spares(client),
            "load": lambda: _load(client),
        }.items():
            progress.show(f"measuring {what}")
            rows += await measure()
        await client.aclose()
    return rows


@contextmanager
def _service(settings: SandboxSettings) -> Iterator[None]:
    """The service in a process of its own, as it is deployed."""
    given = {name: getattr(settings, name) for name in ("toolsets_dir", "workspace_dir", "port", "log_level")}
    environment = {**os.environ, **{f"AGENTFLUX_SANDBOX_{name.upper()}": str(value) for name, value in given.items()}}
    process = subprocess.Popen([sys.executable, "-m", "services.sandbox"], cwd=REPOSITORY, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


async def _starts(settings: SandboxSettings) -> list[Row]:
    """From asking for a program to its first word: in a sandbox, and not."""
    driver = create_driver(settings)
    await driver.probe()
    spec = SandboxSpec(command=("/usr/bin/echo", "here"), workspace=settings.workspace_dir, limits=Limits())
    seconds: dict[str, list[float]] = {"isolated": [], "plain": []}
    for _ in range(STARTS):
        started = time.perf_counter()
        isolated = await driver.start(spec)
        await isolated.stdout.readline()
        seconds["isolated"].append(time.perf_counter() - started)
        await isolated.wait()
        started = time.perf_counter()
        plain = await asyncio.create_subprocess_exec(*spec.command, stdout=asyncio.subprocess.PIPE)
        assert plain.stdout is not None
        await plain.stdout.readline()
        seconds["plain"].append(time.perf_counter() - started)
        await plain.wait()
    added = [1000 * (inside - outside) for inside, outside in zip(*seconds.values(), strict=True)]
    return [
        _row("start in the sandbox, added to a plain one, p50", statistics.median(added), "ms"),
        _row("start in the sandbox, added to a plain one, p95", _quantile(added, 95), "ms", most=15),
        # Whoever else is busy on the machine only ever adds time.
        _row("and undisturbed (p5)", _quantile(added, 5), "ms"),
    ]


async def _cold(client: SandboxClient, progress: Progress) -> list[Row]:
    """A call in a new session: from nothing to the first answer."""
    ready = {info.name: info for info in await client.list_toolsets()}
    rows = []
    for toolset, tool in COLD_TOOLSETS.items():
        if toolset not in ready or not ready[toolset].ready:
            progress.show(f"without {toolset}: {ready[toolset].reason if toolset in ready else 'not there'}")
            continue
        seconds = []
        for _ in range(COLD):
            spec = ToolCallSpec(toolset=toolset, tool=tool, arguments=json.dumps(COLD_ARGUMENTS.get(tool, {})))
            seconds.append(await _timed(lambda spec=spec: client.call_tool(spec, timeout_s=30)))
        rows.append(_row(f"first call of {toolset}, p95", _quantile(seconds, 95), "s", most=1.2))
    return rows


async def _warm(client: SandboxClient) -> list[Row]:
    """The same call through gRPC and the sandbox, and straight from the SDK's client, in turn."""
    parameters = StdioServerParameters(command=PYTHON, args=[str(HOSTILE), "well"])
    async with Client(parameters, mode="auto", cache=None) as plain:
        await plain.list_tools()
        await _echo(client, "warm", "0")
        ours, theirs = [], []
        for number in range(CALLS):
            ours.append(1000 * await _timed(lambda number=number: _echo(client, "warm", str(number))))
            theirs.append(1000 * await _timed(lambda number=number: plain.call_tool("echo", {"text": str(number)})))
    return [
        _row("warm call through gRPC, p50", statistics.median(ours), "ms", most=3),
        _row("warm call through gRPC, p95", _quantile(ours, 95), "ms", most=8),
        _row("warm call through gRPC, p99", _quantile(ours, 99), "ms", most=20),
        _row("the same with the plain client, p50", statistics.median(theirs), "ms"),
        _row("added by us, undisturbed (p5)", _quantile(ours, 5) - _quantile(theirs, 5), "ms"),
        _row("added by us, p50", statistics.median(ours) - statistics.median(theirs), "ms", most=1),
    ]


async def _spares(client: SandboxClient) -> list[Row]:
    """From a new session's call to a server that is ready, where spare ones wait; as fast as they are replaced."""
    waited = []
    while len(waited) < ACQUISITIONS:
        for _ in range(SPARES):
            result = await _echo(client, f"spare-{len(waited)}", "x", toolset="spare")
            waited.append((1000 * result.timings["start_s"], result.cold_start))
        await asyncio.sleep(0.15 * SPARES)
    hits = [ms for ms, cold in waited if not cold]
    return [
        _row("a new session gets a spare server, p95", _quantile(hits, 95), "ms", most=20),
        _row("new sessions that got a ready one", len(hits) / len(waited), "share"),
    ]


async def _load(client: SandboxClient) -> list[Row]:
    """Clients that ask again at once, on a few servers."""
    ends = time.perf_counter() + LOAD_S
    seconds: list[float] = []

    async def ask(number: int) -> None:
        while time.perf_counter() < ends:
            token = f"{number}-{len(seconds)}"
            started = time.perf_counter()
            result = await _echo(client, f"load-{number % SERVERS}", token)
            seconds.append(time.perf_counter() - started)
            assert result.text == token, "an answer of another call"

    await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    return [
        _row(f"calls of {CLIENTS} clients on {SERVERS} servers", len(seconds) / LOAD_S, "per s", least=250),
        _row("and of each call, p95", 1000 * _quantile(seconds, 95), "ms"),
    ]


async def _echo(client: SandboxClient, session: str, text: str, *, toolset: str = "echo") -> ToolResult:
    spec = ToolCallSpec(toolset=toolset, tool="echo", arguments=json.dumps({"text": text}), session_id=session)
    return await client.call_tool(spec, timeout_s=10)


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await act()
    return time.perf_counter() - started


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _row(what: str, found: float, unit: str, *, most: float | None = None, least: float | None = None) -> Row:
    goal = f"<= {most}" if most is not None else f">= {least}" if least is not None else ""
    met = None if not goal else found <= most if most is not None else found >= (least or 0)
    return {"what": what, "found": found, "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    main()
