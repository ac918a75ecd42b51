"""A toolset of 27 functions from people's own requests: the live part of the Berkeley Function Calling Leaderboard (Apache-2.0).

    uv pip install --no-deps --target build/bfcl-eval --requirement trainer/bfcl.txt
    python -m trainer.bfcl --package build/bfcl-eval --out build/toolsets/bfcl
    python -m trainer --toolset bfcl --toolsets-dir build/toolsets --conversations build/toolsets/bfcl/conversations.jsonl …

Writes tools.json and conversations.jsonl. There is no server behind these functions: the result of each call is a placeholder.
Requests that no function serves are answered in text. All other categories are for evaluation, and refused.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from services.shared.contracts.tools import JsonObject, Tool
from trainer.episodes import write_rows
from trainer.trajectories import Trajectory

VERSION = "2026.3.23"
CATEGORIES = ("live_simple", "live_multiple")
# Requests beside which stand functions that do not help; the other functions of the toolset were not looked at.
UNSERVED = "live_irrelevance"
SOURCE = "bfcl"
# A function that fewer people asked for cannot be learned and tested.
LEAST = 10
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
# Shorter words say nothing about what a function is for.
_WORD = 4


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
        return plain_name(self.function)


def plain_name(function: JsonObject) -> str:
    """A function's name, as OpenAI allows it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(function["name"]))


def data_of(package: Path) -> Path:
    """Where the package that was installed into the folder `package` keeps its data.

    Raises:
        RuntimeError: it is not there, or in another version.
    """
    found = [one.version for one in metadata.distributions(name="bfcl-eval", path=[str(package)])]
    if found != [VERSION]:
        there = f"bfcl-eval {found[0]}" if found else "no bfcl-eval"
        raise RuntimeError(f"{package} has {there}; uv pip install --no-deps --target {package} bfcl-eval=={VERSION}")
    return package / "bfcl_eval" / "data"


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


def trajectory(row: Row, tools: Sequence[Tool]) -> Trajectory:
    """The question, its call, and nothing to say about the result."""
    tool = next(tool for tool in tools if tool.name == row.name)
    arguments = json.dumps(gold(row.arguments, tool.parameters.get("required", ())), ensure_ascii=False)
    call = {"id": "call_1", "type": "function", "function": {"name": tool.name, "arguments": arguments}}
    messages = [
        *row.messages,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "name": tool.name, "content": "ok"},
        {"role": "assistant", "content": "Done."},
    ]
    return _conversation(row.id, tool.name, messages, tools, {"call_1": row.arguments})


def unserved(data: Path, tools: Sequence[Tool]) -> Iterator[Trajectory]:
    """Requests beside which a function of the toolset was offered in vain, answered in text.

    Nobody said whether the rest of the toolset would serve them, so those that share a word with a function that was not offered
    are left out, as are those in other alphabets, which cannot be compared; and conversations whose answers nobody judged.
    """
    words = {tool.name: _words(json.dumps(tool.openai())) for tool in tools}
    for question in _lines(data / f"BFCL_v4_{UNSERVED}.json"):
        messages, offered = question["question"][0], {plain_name(function) for function in question["function"]}
        if not offered & words.keys() or any(message["role"] == "assistant" for message in messages):
            continue
        text = " ".join(message["content"] for message in messages)
        if text.strip() and text.isascii() and not any(_words(text) & words[name] for name in words.keys() - offered):
            answer = {"role": "assistant", "content": "None of these functions does that."}
            yield _conversation(question["id"], "outside", [*messages, answer], tools, {})


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[^\W_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower()) if len(word) >= _WORD}


def _conversation(
    row_id: str, kind: str, messages: list[JsonObject], tools: Sequence[Tool], accepted: dict[str, dict[str, list[Any]]]
) -> Trajectory:
    shown = [tool.openai() for tool in tools]
    return Trajectory(id=row_id, source=SOURCE, kind=kind, accepted=accepted, messages=messages, tools=shown)


def write(data: Path, out: Path) -> JsonObject:
    """Writes tools.json and conversations.jsonl; gives the counts."""
    rows = read(data)
    tools = tools_of(rows)
    calls, answers = [trajectory(row, tools) for row in rows], list(unserved(data, tools))
    write_rows(out / "conversations.jsonl", [*calls, *answers])
    (out / "tools.json").write_text(json.dumps([tool.openai() for tool in tools], indent=2, ensure_ascii=False) + "\n")
    return {"tools": len(tools), "calls": len(calls), "answers": len(answers)}


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="the folder into which bfcl-eval was installed")
    parser.add_argument("--out", type=Path, required=True, help="the toolset's folder")
    args = parser.parse_args()
    try:
        print(json.dumps(write(data_of(args.package), args.out)))
    except RuntimeError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
