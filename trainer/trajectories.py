"""Step 2, trajectories: has each episode happen in the sandbox, on the toolset's real MCP server, and records what came back.

    python -m trainer.trajectories --toolset filesystem --episodes build/train/filesystem/episodes.jsonl --out trajectories.jsonl

A row is a conversation as an OpenAI client has it, {messages, tools}, and beside it where it comes from and which calls failed.
Episodes that went otherwise than planned stand in <out>.drops.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import AgentFluxError, InvalidRequest
from services.shared.contracts.execution import ToolCallSpec, ToolRunner
from services.shared.contracts.tools import JsonObject, Tool, sha256_of
from trainer.command import status_of
from trainer.episodes import Ask, Call, Episode, Say, read_rows, write_rows
from trainer.grammars.mechanics import MEDIA

TRAJECTORIES = "trajectories.jsonl"
START_S = 120.0
CALL_S = 30.0
# Calls of a tool without a result, in a row, after which it is not tried again; twice as many, of whatever tools, end the step.
MOST_LOST = 5
# What the assistant says after a call that the plan did not know would fail. No text is ever learned.
REFUSED = "That did not work."

# The smallest picture that any viewer opens; what a medium shows does not matter to who chooses the tool.
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_CLOCK = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{4} \d{2}:\d{2}:\d{2}")


class Drop(BaseModel):
    """A row that was left out: which rule, and the SHA-256 of the row."""

    id: str
    kind: str
    rule: str
    reason: str
    row_sha256: str


class CallLost(RuntimeError):
    """A call came to no result: its server died of it, or gave none in time."""

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(reason)
        self.tool = tool


class Trajectory(BaseModel):
    """A conversation that took place. `failed` are the ids of the calls whose tool reported an error.

    Of these, those in `wanted` were what the user asked for all the same, and may teach. Where people said which arguments they
    accept, `accepted` has them by the call's id; see trainer/accepted.py.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    kind: str
    names_tool: bool = False
    failed: list[str] = Field(default_factory=list)
    wanted: list[str] = Field(default_factory=list)
    accepted: dict[str, dict[str, list[Any]]] = Field(default_factory=dict)
    messages: list[JsonObject]
    tools: list[JsonObject]

    @property
    def mistakes(self) -> set[str]:
        """The calls that failed and that nobody wanted so."""
        return set(self.failed) - set(self.wanted)


class Losses:
    """Calls that came to no result: which tools are not worth another try, and when nothing is."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._by_tool: Counter[str] = Counter()
        self._last = ""
        self._any_answer = False

    def hopeless(self, tools: Iterable[str]) -> str | None:
        """Why none of these need be called again."""
        gone = next((tool for tool in tools if self._by_tool[tool] >= MOST_LOST), None)
        return f"{gone} was not tried again: its last {MOST_LOST} calls came to no result" if gone else None

    def answered(self, row: Trajectory) -> None:
        """The calls of this conversation had a result."""
        for tool in (message["name"] for message in row.messages if message["role"] == "tool"):
            self._by_tool[tool] = self._in_a_row = 0
            self._any_answer = True

    def note(self, lost: CallLost, where: str) -> None:
        """One had none.

        Raises:
            RuntimeError: it was one too many.
        """
        self._by_tool[lost.tool] += 1
        self._in_a_row += 1
        self._last = f"{where}: {lost}"
        if self._in_a_row >= 2 * MOST_LOST:
            raise RuntimeError(self._last)

    def judge(self) -> None:
        """Raises RuntimeError when no call at all had a result."""
        if self._last and not self._any_answer:
            raise RuntimeError(self._last)


async def execute(episode: Episode, toolset: str, tools: Sequence[Tool], runner: ToolRunner) -> Trajectory | str:
    """The episode as it really goes; a sentence when the tools answer otherwise than its plan expects (a failure, or none).

    Its files are there (`lay_out`), and nothing else. The servers keep no state beside the files. Where a call fails that the
    plan left open, what else it would have called for the same request is left out.

    Raises:
        CallLost: see `run_call`.
    """
    messages: list[JsonObject] = [{"role": "system", "content": episode.system}] if episode.system else []
    failed: list[str] = []
    wanted: list[str] = []
    is_refused = False
    for number, step in enumerate(episode.steps):
        if isinstance(step, Ask):
            messages.append({"role": "user", "content": step.text})
            continue
        if isinstance(step, Say):
            messages.append({"role": "assistant", "content": REFUSED if is_refused else step.text})
            is_refused = False
            continue
        if is_refused:
            continue
        arguments, call_id = json.dumps(step.arguments, ensure_ascii=False), f"call_{number}"
        text, is_error = await run_call(runner, toolset, step.tool, arguments)
        if step.fails is not None and is_error != step.fails:
            return f"call {number}, {step.tool}, {'failed' if is_error else 'did not fail'}: {text:.200}"
        is_refused = is_error and step.fails is None
        failed += [call_id] if is_error else []
        wanted += [call_id] if is_refused else []
        function = {"name": step.tool, "arguments": arguments}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": call_id, "name": step.tool, "content": at_another_time(text, episode.id)},
        ]
    shown = [tool.openai() for tool in tools]
    return Trajectory(
        id=episode.id,
        source=episode.source,
        kind=episode.kind,
        names_tool=episode.names_tool,
        failed=failed,
        wanted=wanted,
        messages=messages,
        tools=shown,
    )


async def run_call(runner: ToolRunner, toolset: str, tool: str, arguments: str) -> tuple[str, bool]:
    """What the tool answers, and whether that is an error. `arguments` is JSON text.

    Raises:
        CallLost: it did not end in CALL_S seconds, or its server or the sandbox has gone.
    """
    call = ToolCallSpec(toolset=toolset, tool=tool, arguments=arguments, session_id="trainer")
    try:
        result = await runner.call_tool(call, timeout_s=CALL_S)
    except InvalidRequest as error:
        # Arguments that do not fit the schema: the user would read the same sentence.
        return error.message, True
    except AgentFluxError as error:
        raise CallLost(tool, error.message) from error
    return result.text, result.outcome == "tool_error"


def lay_out(episode: Episode, workspace: Path) -> None:
    """Makes `workspace` hold the files and folders of the episode and nothing else."""
    # What ran before may have moved anything; the folder itself stays, for a server has it open.
    for path in workspace.iterdir():
        # The sandbox's probe of itself may come and go meanwhile.
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for folder in episode.folders:
        (workspace / folder).mkdir(parents=True, exist_ok=True)
    for name, text in episode.files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(_PIXEL if text == MEDIA else text.encode())
    owner = workspace.stat()
    if os.geteuid() == 0:
        for path in workspace.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid)


def at_another_time(text: str, episode_id: str) -> str:
    """A result with its times replaced by others, the same for the same episode."""
    # Real clocks would make every run of this step other data, and teach that all files are of one minute.
    dice = random.Random(episode_id)

    def moment(_: re.Match[str]) -> str:
        day = dice.choice(("Mon", "Tue", "Wed", "Thu", "Fri"))
        month = dice.choice(("Jan", "Mar", "May", "Jul", "Oct"))
        return f"{day} {month} {dice.randint(10, 28)} {dice.randint(2021, 2026)} {dice.randint(10, 23)}:{dice.randint(10, 59)}:00"

    return _CLOCK.sub(moment, text)


@asynccontextmanager
async def sandbox(toolsets_dir: Path) -> AsyncIterator[tuple[SandboxClient, Path]]:
    """A sandbox of our own, as a process, with a workspace of our own; and a client of it.

    Raises:
        RuntimeError: it cannot run tools here; says why.
    """
    with tempfile.TemporaryDirectory(prefix="agentflux-train-") as folder:
        # Tools run as another user when we are root, who has to be able to walk down to the workspace.
        os.chmod(folder, 0o755)
        workspace = Path(folder) / "workspace"
        with _process(toolsets_dir, workspace) as (port, process):
            client = SandboxClient(f"127.0.0.1:{port}")
            try:
                await _until_ready(client, process)
                yield client, workspace
            finally:
                await client.aclose()


@contextmanager
def _process(toolsets_dir: Path, workspace: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"PORT": str(port), "TOOLSETS_DIR": str(toolsets_dir), "WORKSPACE_DIR": str(workspace), "LOG_LEVEL": "warning"}
    environment = {**os.environ, **{f"AGENTFLUX_SANDBOX_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "services.sandbox"], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(client: SandboxClient, process: subprocess.Popen[bytes]) -> None:
    problem: str | None = "it did not start"
    for _ in range(int(START_S / 0.2)):
        if process.poll() is not None:
            raise RuntimeError(f"the sandbox ended with status {process.returncode}: its own messages, above, say why")
        problem = await client.ready()
        if problem is None:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the sandbox cannot run tools: {problem}")


async def write_trajectories(
    toolset: str, toolsets_dir: Path, jobs: dict[Path, Path], tick: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, int]:
    """Executes the episodes of each file into another: `jobs` maps the one to the other. Counts what was dropped, by kind.

    The drops themselves stand beside each target, see `drops_of`.

    Raises:
        AgentFluxError, RuntimeError: the sandbox or the toolset cannot be used.
    """
    episodes = {source: list(read_rows(source, Episode)) for source in jobs}
    total, done, dropped, losses = sum(map(len, episodes.values())), 0, Counter[str](), Losses()
    async with sandbox(toolsets_dir) as (client, workspace):
        tools = await client.list_tools(toolset)
        for source, target in jobs.items():
            rows, drops = list[Trajectory](), list[Drop]()
            for episode in episodes[source]:
                await asyncio.to_thread(lay_out, episode, workspace)
                called = [step.tool for step in episode.steps if isinstance(step, Call)]
                row: Trajectory | str | None = losses.hopeless(called)
                try:
                    if row is None:
                        row = await execute(episode, toolset, tools, client)
                        if isinstance(row, Trajectory):
                            losses.answered(row)
                except CallLost as lost:
                    losses.note(lost, f"episode {episode.id} ({episode.kind})")
                    row = str(lost)
                if isinstance(row, str):
                    dropped[episode.kind] += 1
                    digest = sha256_of(episode.model_dump(mode="json"))
                    drops.append(Drop(id=episode.id, kind=episode.kind, rule="execution", reason=row, row_sha256=digest))
                else:
                    rows.append(row)
                done += 1
                tick(done, total)
            # The rows come last: where they are, all of it is.
            losses.judge()
            write_rows(drops_of(target), drops)
            write_rows(target, rows)
    return dropped


def drops_of(trajectories: Path) -> Path:
    """The file of the episodes that did not become a row of `trajectories`."""
    return trajectories.with_suffix(".drops.jsonl")


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolset", required=True)
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--episodes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(asyncio.run(write_trajectories(args.toolset, args.toolsets_dir, {args.episodes: args.out})))


if __name__ == "__main__":
    raise SystemExit(status_of(main))
