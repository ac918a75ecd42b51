"""`python -m services.engine.adapters --store DIR list|verify|publish|promote|rollback|prune`: the adapter store by hand.

The trainer publishes and promotes by itself; this is for the person who looks after what it left. Refusals end with status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.shared.clients.adapter_files import first_fault, hashes_of
from services.shared.clients.adapters import AdapterStore, StoredAdapter
from services.shared.contracts.adapters import AdapterCard, AdapterSet, Release
from services.shared.contracts.errors import AdapterRefused, AgentFluxError
from services.shared.contracts.tools import JsonObject

_COLUMNS = ("adapter", "role", "rank", "profile", "size", "released in", "problem")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; gives its exit status: 0, 1 when something is refused, 2 for a wrong command line."""
    given = _parser().parse_args(argv)
    store = AdapterStore(given.store)
    try:
        result, text = _run(store, given)
    except AgentFluxError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1, ensure_ascii=False) if given.json else text)
    return 0


def _run(store: AdapterStore, given: argparse.Namespace) -> tuple[Any, str]:
    """What a command gives, as JSON and as text."""
    match given.command:
        case "list":
            found, problems = store.adapters(), store.problems()
            return {"adapters": [_as_json(adapter) for adapter in found], "problems": problems}, table(found, problems)
        case "verify":
            cards = {name: store.verify(name).model_dump(mode="json") for name in given.names}
            return cards, "\n".join(f"{name} is whole and can be served" for name in cards)
        case "publish":
            name = store.publish(given.folder, _card(given.folder, given.card))
            return {"adapter": name}, f"published {name}"
        case "promote":
            adapters = AdapterSet(selector=given.selector, arguments=dict(given.arguments))
            return _release(given.toolset, store.promote(given.toolset, adapters, note=given.note))
        case "rollback":
            return _release(given.toolset, store.roll_back(given.toolset, note=given.note))
        case _:
            gone = store.prune(keep_s=given.keep_days * 86400)
            return {"deleted": gone}, "\n".join(f"deleted {name}" for name in gone) or "nothing to delete"


def table(adapters: list[StoredAdapter], problems: dict[str, str]) -> str:
    """The adapters under each other; the release that serves has a star. Then the manifests that cannot be read."""
    rows = [_COLUMNS, *(_row(adapter) for adapter in adapters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *problems.values()])


def _row(adapter: StoredAdapter) -> tuple[str, ...]:
    card = adapter.card
    releases = [str(number) for number in adapter.releases]
    if adapter.serves:
        releases[0] += "*"
    described = (card.role, str(card.rank), card.prompt_profile) if card else ("", "", "")
    return (adapter.name, *described, f"{adapter.size / 1e6:.1f} MB", " ".join(releases), adapter.problem or "")


def _as_json(adapter: StoredAdapter) -> JsonObject:
    card = adapter.card.model_dump(mode="json") if adapter.card else None
    return {
        "name": adapter.name, "size": adapter.size, "releases": adapter.releases, "serves": adapter.serves,
        "problem": adapter.problem, "card": card,
    }  # fmt: skip


def _card(folder: Path, path: Path) -> AdapterCard:
    try:
        return AdapterCard.model_validate({"files": hashes_of(folder), **json.loads(path.read_bytes())})
    except (OSError, ValueError, TypeError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else error
        raise AdapterRefused(f"{path} is not the card of an adapter: {reason}") from None


def _release(toolset: str, release: Release) -> tuple[JsonObject, str]:
    names = ", ".join(release.adapters.names) or "the base model alone"
    return release.model_dump(mode="json"), f"release {release.number} of {toolset}: {names}"


def _tool_and_name(text: str) -> tuple[str, str]:
    tool, separator, name = text.rpartition("=")
    if not (tool and separator and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOOL=ADAPTER")
    return tool, name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.engine.adapters", description="The adapter store, by hand.")
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="the folder of the store")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help, parents=[shared])

    command("list", "every adapter, with the releases that use it and what is wrong with it")
    verify = command("verify", "read every byte of these adapters")
    verify.add_argument("names", nargs="+", metavar="ADAPTER")
    publish = command("publish", "add an adapter; nothing uses it yet")
    publish.add_argument("folder", type=Path, help="with adapter_config.json and adapter_model.safetensors")
    publish.add_argument("--card", type=Path, required=True, help="a JSON file with its card; `files` may be left out")
    promote = command("promote", "let adapters serve a toolset; without any, the base model does alone")
    promote.add_argument("toolset")
    promote.add_argument("--selector", metavar="ADAPTER")
    promote.add_argument("--arguments", type=_tool_and_name, action="append", default=[], metavar="TOOL=ADAPTER")
    rollback = command("rollback", "let the adapters serve again that did before the present ones")
    rollback.add_argument("toolset")
    for releasing in (promote, rollback):
        releasing.add_argument("--note", default="", help="kept in the release")
    prune = command("prune", "delete adapters that no remembered release uses")
    prune.add_argument("--keep-days", type=float, default=7, metavar="N", help="but none published in the last N days (7)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
