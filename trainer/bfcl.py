"""A toolset of 27 functions from people's own requests: the live part of the Berkeley Function Calling Leaderboard (Apache-2.0).

    pip install --no-deps bfcl-eval==2026.3.23
    python -m trainer.bfcl --out build/train/bfcl

Writes tools.json, train.jsonl, valid.jsonl and test.jsonl (70/10/20 by the SHA-256 of the question). There is no server behind
these functions: the result of each call is a placeholder. All other categories are for evaluation, and are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool
from trainer.episodes import write_rows
from trainer.similarity import normal
from trainer.trajectories import Trajectory

VERSION = "2026.3.23"
CATEGORIES = ("live_simple", "live_multiple")
SOURCE = "bfcl"
# A function that fewer people asked for cannot be learned and tested.
LEAST = 10
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


@dataclass(frozen=True)
class Row:
    """One question with its one right call. `arguments` has for each parameter the values that are accepted."""

    id: str
    messages: list[JsonObject]
    function: JsonObject
    arguments: dict[str, list[Any]]

    @property
    def name(self) -> str:
        """The function's name, as OpenAI allows it."""
        return str(self.function["name"]).replace(".", "_")


def installed_data() -> Path:
    """Where the installed package keeps its data.

    Raises:
        RuntimeError: it is not installed, or in another version.
    """
    try:
        package = metadata.distribution("bfcl-eval")
    except metadata.PackageNotFoundError as error:
        raise RuntimeError(f"install the data first: pip install --no-deps bfcl-eval=={VERSION}") from error
    if package.version != VERSION:
        raise RuntimeError(f"bfcl-eval is installed as {package.version}; these rows are those of {VERSION}")
    return Path(str(package.locate_file("bfcl_eval/data")))


def read(data: Path, categories: Sequence[str] = CATEGORIES) -> list[Row]:
    """The rows of `categories` whose functions were asked for often enough.

    Raises:
        ValueError: a category is for evaluation only.
    """
    if others := set(categories) - set(CATEGORIES):
        raise ValueError(f"{sorted(others)} are for evaluation only; what may teach is {', '.join(CATEGORIES)}")
    rows = [row for category in categories for row in _category(data, category)]
    often = Counter(row.name for row in rows)
    return [row for row in rows if often[row.name] >= LEAST]


def _category(data: Path, category: str) -> Iterable[Row]:
    file = f"BFCL_v4_{category}.json"
    right = {answer["id"]: answer["ground_truth"] for answer in _lines(data / "possible_answer" / file)}
    for question in _lines(data / file):
        [(name, arguments)] = right[question["id"]][0].items()
        [function] = [function for function in question["function"] if function["name"] == name]
        yield Row(question["id"], question["question"][0], function, arguments)


def _lines(path: Path) -> Iterable[JsonObject]:
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def tools_of(rows: Iterable[Row]) -> list[Tool]:
    """One tool per function. Its descriptions differ from row to row: the most frequent one leads, the others widen it."""
    variants: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        variants[row.name][json.dumps(row.function)] += 1
    tools = []
    for name, found in sorted(variants.items()):
        first, *others = [json.loads(text) for text, _ in found.most_common()]
        schema = json_schema(first["parameters"])
        for other in others:
            schema = _widened(schema, json_schema(other["parameters"]))
        tools.append(Tool(name=name, description=first["description"], parameters=schema))
    return tools


def json_schema(schema: Any) -> Any:
    """Their schema, which names types as Python does, as JSON Schema."""
    if isinstance(schema, list):
        return [json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value if key in ("default", "enum") else json_schema(value) for key, value in schema.items()}
    kind = plain.get("type")
    if kind == "any":
        del plain["type"]
    elif isinstance(kind, str):
        plain["type"] = _TYPES.get(kind, kind)
    return plain


def _widened(schema: JsonObject, other: JsonObject) -> JsonObject:
    """`schema`, which also allows what `other` does."""
    wide = dict(schema)
    if "required" in schema:
        wide["required"] = [key for key in schema["required"] if key in other.get("required", ())]
    if "enum" in schema:
        wide["enum"] = [*schema["enum"], *(value for value in other.get("enum", ()) if value not in schema["enum"])]
    if "enum" in schema and "enum" not in other:
        del wide["enum"]
    if "properties" in schema:
        own, more = schema["properties"], other.get("properties", {})
        wide["properties"] = {**more, **own, **{key: _widened(own[key], more[key]) for key in own.keys() & more.keys()}}
    if schema.get("type") != other.get("type"):
        wide.pop("type", None)
    return wide


def gold(arguments: dict[str, list[Any]], required: Sequence[str]) -> JsonObject:
    """The call itself: the first value that is accepted; "" stands for a parameter that may be left out."""
    call = {}
    for key, accepted in arguments.items():
        values = [value for value in accepted if value != ""]
        if accepted and (key in required or accepted[0] != ""):
            call[key] = _plain((values or accepted)[0])
    return call


def _plain(value: Any) -> Any:
    """Objects within have their accepted values, too."""
    if isinstance(value, dict):
        return gold(value, ())
    return [_plain(part) for part in value] if isinstance(value, list) else value


def trajectory(row: Row, tools: Sequence[Tool]) -> Trajectory | None:
    """The question, its call, and nothing to say about the result; None when the call does not satisfy its schema."""
    tool = next(tool for tool in tools if tool.name == row.name)
    arguments = gold(row.arguments, tool.parameters.get("required", ()))
    if not compiled_schema(tool).is_valid(arguments):
        return None
    function = {"name": tool.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    messages = [
        *row.messages,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "call_1", "name": tool.name, "content": "ok"},
        {"role": "assistant", "content": "Done."},
    ]
    return Trajectory(id=row.id, source=SOURCE, kind=tool.name, messages=messages, tools=[tool.openai() for tool in tools])


def part_of(row: Trajectory) -> str:
    """Which part a row belongs to, for good: whoever asks the same gets the same."""
    asked = " / ".join(normal(str(message["content"])) for message in row.messages if message["role"] == "user")
    share = int(hashlib.sha256(asked.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.7 else "valid" if share < 0.8 else "test"


def write(data: Path, out: Path) -> JsonObject:
    """Writes tools.json and the three parts; gives the counts."""
    rows = read(data)
    tools = tools_of(rows)
    parts: dict[str, list[Trajectory]] = {"train": [], "valid": [], "test": []}
    invalid = 0
    for row in rows:
        made = trajectory(row, tools)
        if made is None:
            invalid += 1
        else:
            parts[part_of(made)].append(made)
    for part, members in parts.items():
        write_rows(out / f"{part}.jsonl", members)
    (out / "tools.json").write_text(json.dumps([tool.openai() for tool in tools], indent=2, ensure_ascii=False) + "\n")
    return {"tools": len(tools), "rows": len(rows), "invalid": invalid, **{part: len(members) for part, members in parts.items()}}


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(write(installed_data(), args.out)))


if __name__ == "__main__":
    main()
