"""`python -m services.sandbox.import_agentflux FOLDER [-- COMMAND …]` makes a toolset of an AgentFlux category.

Such a folder (inference/agentflux/config/<category> of efeslab/AgentFlux) has tool_list.json, the tools as OpenAI functions, and
mostly classifier.json and tool_adapters.json, which name the models that select among them and write their arguments. The tools
become a toolset; how their MCP server is started is said there by nobody, so it follows after `--`. Models are not taken over:
they are names at another server. Exit status 0: written; 1: shown only, for `--approve` was not given; 2: it cannot be imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.sandbox.errors import SandboxError, ToolsetNotReady
from services.sandbox.frames import strict_json
from services.sandbox.limits import Limits
from services.sandbox.pinning import LOCK_FILE, MAX_FILE_BYTES, TOOLS_FILE, PinnedTool, lock_of, tools_of
from services.sandbox.schemas import compiled
from services.sandbox.suspicious import suspicious
from services.sandbox.toolset_file import TOOLSET_FILE
from services.sandbox.toolsets import read_toolset
from services.shared.contracts.adapters import TOOLSET_NAME
from services.shared.contracts.tools import Tool

TOOL_LIST = "tool_list.json"
CLASSIFIER = "classifier.json"
TOOL_ADAPTERS = "tool_adapters.json"
# Their word for "answer instead of calling a tool", which is no tool of any server.
ANSWER = "summarize"


@dataclass(frozen=True)
class Category:
    """What a folder says: the tools, and the models by what they did (None: the selection)."""

    tools: tuple[Tool, ...]
    models: Mapping[str | None, str]


def read_category(folder: Path) -> Category:
    """The category in `folder`.

    Raises:
        ToolsetNotReady: names the file, what is wrong there, and what it should be.
    """
    listed = _read(folder / TOOL_LIST, required=True)
    try:
        tools = tuple(tools_of(listed))
        for tool in tools:
            compiled(tool.parameters)
    except ValueError as error:
        raise ToolsetNotReady(f"{folder / TOOL_LIST} cannot be imported: {error}") from None
    if not tools:
        raise ToolsetNotReady(f"{folder / TOOL_LIST} has no tools: there is nothing to import")
    names = {tool.name for tool in tools}
    models: dict[str | None, str] = {}
    path = folder / CLASSIFIER
    if (classifier := _read(path)) is not None:
        if not isinstance(classifier, dict) or not isinstance(classifier.get("tools", []), list):
            raise ToolsetNotReady(f'{path} must be an object such as {{"model": "…", "port": 8010, "tools": ["…"]}}')
        _require_known(path, classifier.get("tools", []), names)
        models[None] = _model(path, classifier)
    path = folder / TOOL_ADAPTERS
    if (adapters := _read(path)) is not None:
        if not isinstance(adapters, dict):
            raise ToolsetNotReady(f'{path} must be an object such as {{"read_file": {{"model": "…", "port": 8010}}}}')
        _require_known(path, list(adapters), names)
        models.update({name: _model(path, entry) for name, entry in adapters.items() if name != ANSWER})
    return Category(tools, models)


def write_toolset(directory: Path, category: Category, command: Sequence[str], source: str) -> None:
    """Writes the toolset into the new folder `directory`, which is read back to be sure.

    Raises:
        ToolsetNotReady: the folder exists, or cannot be written.
    """
    entries = {"description": f"Imported from the AgentFlux category {source}.", "command": list(command)}
    pinned = [PinnedTool(tool) for tool in category.tools]
    files = {
        TOOLSET_FILE: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True),
        TOOLS_FILE: json.dumps([tool.openai() for tool in category.tools], indent=2, ensure_ascii=False) + "\n",
        LOCK_FILE: json.dumps(lock_of(pinned, None), indent=2, ensure_ascii=False) + "\n",
    }
    try:
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text, "utf-8")
    except FileExistsError:
        raise ToolsetNotReady(f"{directory} exists already: remove it, or give another --name") from None
    except OSError as error:
        raise ToolsetNotReady(f"{directory} cannot be written: {error.strerror}") from None
    read_toolset(directory, Limits())


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m services.sandbox.import_agentflux",
        usage="%(prog)s FOLDER [--name NAME] [--toolsets-dir DIR] [--approve] [-- COMMAND …]",
        description=__doc__,
    )
    parser.add_argument("folder", type=Path, help="a category: a folder with tool_list.json")
    parser.add_argument("--name", help="of the toolset (default: that of the folder)")
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--approve", action="store_true", help="write the toolset; without it, it is only shown")
    # What follows -- is the server's own command line; argparse would look for options of ours in it.
    ours, command = _split(sys.argv[1:] if argv is None else argv)
    given = parser.parse_args(ours)
    name = given.name or given.folder.resolve().name
    try:
        if not TOOLSET_NAME.fullmatch(name):
            raise ToolsetNotReady(f"{name!r} cannot be a toolset's name: give --name with 1 to 64 of a-z 0-9 _ -")
        category = read_category(given.folder)
        print("\n".join(_shown(category)))
        if not given.approve:
            print(f"{name}: nothing is written; to approve these tools, add --approve")
            return 1
        write_toolset(given.toolsets_dir / name, category, command, given.folder.resolve().name)
    except SandboxError as error:
        print(error.message, file=sys.stderr)
        return 2
    print(f"{given.toolsets_dir / name}: {len(category.tools)} tools")
    missing = "" if command else f"write into its {TOOLSET_FILE} how the server is started; then "
    print(f"next: {missing}compare with what the server lists: python -m services.sandbox.pin {name}")
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


def _shown(category: Category) -> Iterator[str]:
    for tool in category.tools:
        yield f"{ascii(tool.name)[1:-1]}: {ascii(tool.description)[1:-1]:.160}"
        yield from (f"suspicious: {ascii(tool.name)[1:-1]}: {flag}" for flag in suspicious(PinnedTool(tool)))
    for role, model in category.models.items():
        yield f"not taken over: the model {model!a} for {'the selection' if role is None else f'the arguments of {role}'}"


def _model(path: Path, entry: Any) -> str:
    model = entry.get("model") if isinstance(entry, dict) else entry
    # null stands for the model of the other server's default.
    if not isinstance(entry, dict) or not isinstance(model, str | None):
        raise ToolsetNotReady(f'{path} must name models as {{"model": "…", "port": 8010}}, not {str(entry)[:80]!r}')
    return model or "default"


def _require_known(path: Path, listed: Sequence[Any], names: set[str]) -> None:
    if unknown := [str(name)[:130] for name in listed if name not in names and name != ANSWER]:
        raise ToolsetNotReady(
            f"{path} names {', '.join(sorted(unknown)[:5])}, which {TOOL_LIST} does not have; it has {', '.join(sorted(names))}"
        )


def _read(path: Path, *, required: bool = False) -> Any:
    if not path.is_file():
        if required:
            raise ToolsetNotReady(f"{path.parent} is no AgentFlux category: it has no {path.name}")
        return None
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ValueError(f"it has {size} bytes; at most {MAX_FILE_BYTES} are read")
        return strict_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ToolsetNotReady(f"{path} cannot be imported: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
