"""Step 1, queries: writes episodes.jsonl (training) and heldout.jsonl (evaluation) with a toolset's grammars, without a model.

    python -m trainer.queries --toolset filesystem --out build/train/filesystem --count 1200 --heldout 400 --seed 0

A toolset for which nobody wrote a grammar gets one from the schemas of its tools.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from services.shared.contracts.tools import Tool
from trainer.command import status_of
from trainer.episodes import write_rows
from trainer.grammars.from_schema import schema_grammar
from trainer.grammars.mechanics import Grammar

EPISODES = "episodes.jsonl"
HELDOUT = "heldout.jsonl"


def grammar(toolset: str, part: str, tools: Sequence[Tool] = ()) -> Grammar:
    """The grammar of `toolset` for the `part` "train" or "heldout": the one that was written for it, else one from `tools`.

    Raises:
        LookupError: neither is there; says which file to add.
    """
    module = f"trainer.grammars.{toolset}_{part}"
    try:
        found: Grammar = importlib.import_module(module).GRAMMAR
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        if not tools:
            raise LookupError(
                f"toolset {toolset!r} has no tools.json and no grammar: write the one with `python -m services.sandbox.pin "
                f"{toolset}`, or add trainer/grammars/{toolset}_{part}.py with a GRAMMAR"
            ) from error
        return schema_grammar(toolset, part, tools)
    return found


def pinned_tools(toolset: str, toolsets_dir: Path) -> list[Tool]:
    """The tools that `toolset` is pinned to; none when it has no tools.json.

    Raises:
        LookupError: the file is something else.
    """
    path = toolsets_dir / toolset / "tools.json"
    try:
        return [Tool(**entry["function"]) for entry in json.loads(path.read_text())] if path.exists() else []
    except (ValueError, KeyError, TypeError) as error:
        raise LookupError(f"{path} is not a list of OpenAI tools: {type(error).__name__}: {error}") from error


def write_queries(toolset: str, out: Path, *, count: int, heldout: int, seed: int, tools: Sequence[Tool] = ()) -> None:
    """Writes both files into `out`."""
    write_rows(out / EPISODES, grammar(toolset, "train", tools).episodes(count, seed))
    write_rows(out / HELDOUT, grammar(toolset, "heldout", tools).episodes(heldout, seed))


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolset", required=True)
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--heldout", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tools = pinned_tools(args.toolset, args.toolsets_dir)
    write_queries(args.toolset, args.out, count=args.count, heldout=args.heldout, seed=args.seed, tools=tools)


if __name__ == "__main__":
    raise SystemExit(status_of(main))
