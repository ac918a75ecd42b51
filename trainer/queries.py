"""Step 1, queries: writes episodes.jsonl (training) and heldout.jsonl (evaluation) with a toolset's grammars, without a model.

python -m trainer.queries --toolset filesystem --out build/train/filesystem --count 1200 --heldout 400 --seed 0
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from trainer.episodes import write_rows
from trainer.grammars.mechanics import Grammar

EPISODES = "episodes.jsonl"
HELDOUT = "heldout.jsonl"


def grammar(toolset: str, part: str) -> Grammar:
    """The grammar of `toolset` for the `part` "train" or "heldout".

    Raises:
        LookupError: nobody has written one; says which file to add.
    """
    module = f"trainer.grammars.{toolset}_{part}"
    try:
        found: Grammar = importlib.import_module(module).GRAMMAR
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise LookupError(
            f"toolset {toolset!r} has no grammar: add trainer/grammars/{toolset}_{part}.py with a GRAMMAR, "
            "or bring trajectories of your own"
        ) from error
    return found


def write_queries(toolset: str, out: Path, *, count: int, heldout: int, seed: int) -> None:
    """Writes both files into `out`."""
    write_rows(out / EPISODES, grammar(toolset, "train").episodes(count, seed))
    write_rows(out / HELDOUT, grammar(toolset, "heldout").episodes(heldout, seed))


def main() -> None:
    """Runs this step alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--heldout", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_queries(args.toolset, args.out, count=args.count, heldout=args.heldout, seed=args.seed)


if __name__ == "__main__":
    main()
