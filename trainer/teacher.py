"""Steps 1 and 2 with a teacher: a larger model writes the queries and plays the assistant, whose calls the sandbox executes.

    AGENTFLUX_TRAINER_TEACHER_BASE_URL=http://host:8000/v1 AGENTFLUX_TRAINER_TEACHER_MODEL=name \
        python -m trainer.teacher --toolset filesystem --out build/train/filesystem --per-tool 60

Writes queries.jsonl, trajectories.jsonl (partial.jsonl when the teacher died) and teacher.json, with what it took. What the
teacher said is kept in teacher.sqlite: a second run goes on from there. The gates of the dataset step judge the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import count as counting
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.shared.contracts.execution import ToolRunner
from services.shared.contracts.tools import JsonObject, Tool, sha256_of
from trainer.command import status_of
from trainer.episodes import Ask, Episode, Say, write_rows
from trainer.grammars.mechanics import Dice, World, make_world
from trainer.progress import Bar, Tick, progress, silent
from trainer.queries import grammar, pinned_tools
from trainer.similarity import normal
from trainer.teacher_client import Teacher, TeacherSettings
from trainer.trajectories import TRAJECTORIES, CallLost, Losses, Trajectory, at_another_time, lay_out, run_call, sandbox

SOURCE = "teacher"
QUERIES = "queries.jsonl"
PARTIAL = "partial.jsonl"
REPORT = "teacher.json"
BATCH = 10
MAX_TURNS = 8

# Gives a runner of its own and the folder that its tools work in.
Sandboxes = Callable[[Path], AbstractAsyncContextManager[tuple[ToolRunner, Path]]]
Level = Literal["easy", "medium", "hard", "vague", "several", "none"]
# What each kind of query is, told to the teacher.
LEVELS: dict[Level, str] = {
    "easy": "short and direct; every argument is said",
    "medium": "in everyday words, with some context around it; every argument is said",
    "hard": "long, indirect or full of detail; optional arguments are used too",
    "vague": "some arguments are only hinted at, yet can be told from the request",
    "several": "a goal that takes two to five steps, this tool among others",
    "none": "small talk, a general question, or a wish for which there is no tool here at all",
}


class Query(BaseModel):
    """What a user says in a workspace that holds `files` and the empty `folders`; `tool` is the one it was written for."""

    model_config = ConfigDict(frozen=True)

    text: str
    level: Level
    tool: str | None
    files: dict[str, str] = Field(default_factory=dict)
    folders: list[str] = Field(default_factory=list)


def world_for(toolset: str, seed: str) -> World:
    """A workspace for queries: made with the words of the toolset's own grammar, or empty when it has none."""
    try:
        words = grammar(toolset, "train").words
    except LookupError:
        return World()
    return make_world(Dice(seed), words)


async def teacher_queries(
    teacher: Teacher, toolset: str, tools: Sequence[Tool], per_tool: int, seed: int, tick: Tick
) -> list[Query]:
    """About `per_tool` queries for each tool, over all levels, and as many that need none; no two of them alike.

    Raises:
        TeacherDown: see `Teacher.ask`.
    """
    some = max(1, round(per_tool / (len(LEVELS) - 1)))
    orders = [(tool, level, some) for tool in tools for level in LEVELS if level != "none"]
    batches = [
        (tool, level, min(BATCH, count - start), start)
        for tool, level, count in [*orders, (None, "none", per_tool)]
        for start in range(0, count, BATCH)
    ]
    answered = counting(1)

    async def batch(tool: Tool | None, level: Level, count: int, start: int) -> list[Query]:
        world = world_for(toolset, f"{seed}/{tool and tool.name}/{level}/{start}")
        body = {"messages": _order(tool, tools, level, count, world), "seed": seed * 1000 + start}
        texts = await teacher.ask(body, _texts) or []
        tick(next(answered), len(batches))
        name = tool.name if tool else None
        return [Query(text=text, level=level, tool=name, files=world.files, folders=world.empty) for text in texts[:count]]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(batch(*one)) for one in batches]  # type: ignore[arg-type]
    unique: dict[str, Query] = {}
    for task in tasks:
        for query in task.result():
            unique.setdefault(normal(query.text), query)
    return list(unique.values())


def _order(tool: Tool | None, tools: Sequence[Tool], level: Level, count: int, world: World) -> list[JsonObject]:
    files = "\n".join([*sorted(world.files), *(f"{folder}/" for folder in world.empty)])
    wanted = f"the tool {json.dumps(tool.openai()['function'], ensure_ascii=False)}" if tool else "no tool"
    others = "\n".join(f"- {other.name}: {other.description.split('. ')[0]}" for other in tools)
    text = (
        f"An assistant has these tools:\n{others}\n\n"
        + (f"The user's files, by path:\n{files}\n\n" if files else "")
        + f"Write {count} different requests of users for which the assistant needs {wanted}. Each is {LEVELS[level]}. "
        "Never name a tool, invent no file that is read, and let every name, path and number that a call needs appear in the "
        'request. Answer with JSON only: {"queries": ["...", "..."]}'
    )
    return [{"role": "user", "content": text}]


def _texts(message: JsonObject) -> list[str]:
    """The queries in a reply, around which teachers like to talk."""
    content = str(message["content"])
    found = json.loads(content[content.index("{") : content.rindex("}") + 1])["queries"]
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found) or not found:
        raise ValueError("queries must be a list of texts")
    return [text.strip() for text in found]


async def converse(query: Query, teacher: Teacher, toolset: str, tools: Sequence[Tool], runner: ToolRunner) -> Trajectory | None:
    """The conversation that follows from `query`, in a workspace that is laid out for it; None when it comes to no end.

    Raises:
        TeacherDown: see `Teacher.ask`.
        CallLost: see `run_call`.
    """
    row_id = sha256_of([query.text, query.files])[:16]
    messages: list[JsonObject] = [{"role": "user", "content": query.text}]
    failed: list[str] = []
    shown = [tool.openai() for tool in tools]
    known = {tool.name for tool in tools}
    for turn in range(MAX_TURNS):
        said = await teacher.ask({"messages": messages, "tools": shown}, lambda message: _turn(message, known))
        if said is None:
            return None
        content, calls = said
        if not calls:
            messages.append({"role": "assistant", "content": content})
            kind = query.tool or "none"
            return Trajectory(id=row_id, source=SOURCE, kind=kind, failed=failed, messages=messages, tools=shown)
        # Ids of our own: the teacher's are new every time, and would make every later request another one.
        made = [
            {"id": f"call_{turn}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
        messages.append({"role": "assistant", "content": content, "tool_calls": made})
        for call, (name, arguments) in zip(made, calls, strict=True):
            text, is_error = await run_call(runner, toolset, name, arguments)
            failed += [str(call["id"])] if is_error else []
            text = at_another_time(text, row_id)
            messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": text})
    return None


def _turn(message: JsonObject, known: set[str]) -> tuple[str | None, list[tuple[str, str]]]:
    """What the assistant said, and its calls by name and JSON text."""
    calls = [(str(call["function"]["name"]), call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    for name, arguments in calls:
        if name not in known or not isinstance(json.loads(arguments), dict):
            raise ValueError(f"{name!r} with {arguments!r:.60} is no call")
    content = message.get("content")
    if not calls and not (isinstance(content, str) and content.strip()):
        raise ValueError("neither a call nor an answer")
    return content or None, calls


async def teacher_trajectories(
    teacher: Teacher,
    toolset: str,
    toolsets_dir: Path,
    queries: Sequence[Query],
    kept: Callable[[list[Trajectory]], None],
    opened: Sandboxes,
    tick: Tick,
) -> list[Trajectory]:
    """Has all conversations, in the order of `queries`, several at once. When it fails, `kept` gets what there is.

    Raises:
        TeacherDown, RuntimeError: the teacher or the sandbox cannot be used.
    """
    found: dict[int, Trajectory | None] = {}
    losses = Losses()
    waiting, ended = iter(enumerate(queries)), counting(1)

    async def worker(client: ToolRunner, workspace: Path, tools: Sequence[Tool]) -> None:
        for number, query in waiting:
            # Two steps that nobody says: an episode's files are all that is wanted of it.
            episode = Episode(
                source=SOURCE, kind="", files=query.files, folders=query.folders, steps=[Ask(text=""), Say(text="")]
            )
            await asyncio.to_thread(lay_out, episode, workspace)
            found[number] = None
            try:
                if losses.hopeless([query.tool] if query.tool else []) is None:
                    found[number] = row = await converse(query, teacher, toolset, tools, client)
                    if row is not None:
                        losses.answered(row)
            except CallLost as lost:
                losses.note(lost, f"query {query.text!r:.80}")
            tick(next(ended), len(queries))

    def rows() -> list[Trajectory]:
        return [row for _, row in sorted(found.items()) if row is not None]

    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(opened(toolsets_dir)) for _ in range(teacher.settings.conversations)]
        tools = await places[0][0].list_tools(toolset)
        try:
            async with asyncio.TaskGroup() as group:
                for client, workspace in places:
                    group.create_task(worker(client, workspace, tools))
        except BaseExceptionGroup as error:
            kept(rows())
            raise error.exceptions[0] from error
    return rows()


async def teach(
    toolset: str,
    toolsets_dir: Path,
    out: Path,
    settings: TeacherSettings,
    *,
    per_tool: int,
    seed: int,
    opened: Sandboxes = sandbox,
    bar: Bar = silent,
) -> JsonObject:
    """Both steps; the report.

    Raises:
        TeacherDown, AgentFluxError, RuntimeError: the teacher or the sandbox cannot be used; what there is, is in partial.jsonl.
    """
    tools = pinned_tools(toolset, toolsets_dir)
    async with Teacher(settings, out / "teacher.sqlite") as teacher:
        try:
            with bar("teacher, queries") as tick:
                queries = await teacher_queries(teacher, toolset, tools, per_tool, seed, tick)
        except BaseExceptionGroup as error:
            raise error.exceptions[0] from error
        if not queries:
            raise teacher.useless("query")
        write_rows(out / QUERIES, queries)
        with bar("teacher, conversations") as tick:
            rows = await teacher_trajectories(
                teacher, toolset, toolsets_dir, queries, lambda rows: write_rows(out / PARTIAL, rows), opened, tick
            )
        if not rows:
            raise teacher.useless("conversation")
        report = {"model": settings.model, "queries": len(queries), "trajectories": len(rows), **teacher.report()}
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    (out / PARTIAL).unlink(missing_ok=True)
    # The rows come last: where they are, this step is done.
    write_rows(out / TRAJECTORIES, rows)
    return report


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toolset", required=True)
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-tool", type=int, default=60, help="how many queries to ask for per tool")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = TeacherSettings()
    with progress() as bar:
        report = asyncio.run(
            teach(args.toolset, args.toolsets_dir, args.out, settings, per_tool=args.per_tool, seed=args.seed, bar=bar)
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    raise SystemExit(status_of(main))
