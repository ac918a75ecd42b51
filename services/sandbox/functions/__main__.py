"""`python -m services.sandbox.functions` is how an operator approves what agents registered, after reading it.

list                 all functions, and who may call them
show TOOLSET         one of them, whole
approve TOOLSET      from now on every tenant may call it
revoke TOOLSET       from now on only the tenants that registered it may
"""

from __future__ import annotations

import argparse
import getpass
import sys

from services.sandbox.app import create_functions
from services.sandbox.functions.function import Function
from services.sandbox.functions.lint import advice, parsed
from services.sandbox.functions.store import FunctionStore, Registered
from services.sandbox.settings import SandboxSettings
from services.shared.contracts.errors import AgentFluxError


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.sandbox.functions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("list", "show", "approve", "revoke"))
    parser.add_argument("toolset", nargs="?", default="")
    given = parser.parse_args(arguments)
    if (given.command == "list") == bool(given.toolset):
        parser.error("list takes no TOOLSET, and the other commands take one")
    store = create_functions(SandboxSettings())
    if store is None:
        print("no functions are kept: set AGENTFLUX_SANDBOX_FUNCTIONS_DIR", file=sys.stderr)
        return 1
    try:
        return _run(store, given.command, given.toolset)
    except (AgentFluxError, OSError) as error:
        print(error.message if isinstance(error, AgentFluxError) else error, file=sys.stderr)
        return 1


def _run(store: FunctionStore, command: str, toolset: str) -> int:
    if command == "list":
        for each in store.all():
            print(_line(each))
    elif command == "show":
        found = [each for each in store.all() if each.function.toolset == toolset]
        for each in found:
            print(_whole(each))
        return 0 if found else 1
    else:
        print(_line(store.approve(toolset, getpass.getuser() if command == "approve" else "")))
    return 0


def _line(each: Registered) -> str:
    whose = ", ".join(f"{tenant} v{version}" for tenant, version in sorted(each.versions.items()))
    state = f"approved {each.approved} by {each.approved_by}" if each.approved else "not approved"
    return f"{each.function.toolset}  {whose}  {state}"


def _whole(each: Registered) -> str:
    """For a person's eyes: what a terminal would obey or hide is written out."""
    function: Function = each.function
    notes = advice(parsed(function.source), function.name, function.parameters)
    parts = [_line(each), f"sha256 {function.digest}", function.description, str(function.parameters), function.source, *notes]
    return "\n\n".join("\n".join(ascii(line)[1:-1] for line in part.splitlines()) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
