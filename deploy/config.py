"""Looks at the settings before anything starts, and writes their reference page.

    python -m deploy.config check [SERVICE …] [--env-file FILE]
    python -m deploy.config reference > deploy/CONFIGURATION.md

`check` reads the environment as the services would, and says everything that is wrong with it: names that set nothing, values
that cannot be, files that are not there. It starts nothing and connects to nothing. The exit status is 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from deploy.local.plan import REPOSITORY, LocalSettings
from services.arguments.settings import ArgumentsSettings
from services.callcache.settings import CallCacheSettings
from services.engine.settings import EngineSettings
from services.gateway.settings import GatewaySettings
from services.sandbox.settings import SandboxSettings
from services.selector.settings import SelectorSettings
from services.shared.chassis.settings import problems_of, variable_of
from trainer.teacher_client import TeacherSettings

SERVICES: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "selector": SelectorSettings,
    "arguments": ArgumentsSettings,
    "callcache": CallCacheSettings,
    "sandbox": SandboxSettings,
    "engine": EngineSettings,
}
LOCAL = "`make up`"
EVERYTHING: dict[str, type[BaseSettings]] = {**SERVICES, "the trainer's teacher": TeacherSettings, LOCAL: LocalSettings}

PAGE = """# Configuration

Every setting of every service is an environment variable. This page is generated from the code (`python -m deploy.config
reference`); a test keeps it true. `python -m deploy.config check` says what is wrong with an environment before anything starts.

- A variable with the prefix of a service that is no setting stops that service, with a suggestion.
- `<NAME>_FILE` holds the path of a file with the value of `<NAME>`, for secrets. There are no default passwords.
- Lists and objects are written as JSON; a field of an object may be set by `<NAME>__<FIELD>`. An empty variable is not set.
"""


def check(wanted: list[str]) -> list[str]:
    """What is wrong with the environment for the services `wanted`, or for all that it configures."""
    known = {variable_of(settings, field) for settings in EVERYTHING.values() for field in settings.model_fields}
    # Compose has variables of its own, which no container sees.
    foreign = _compose_variables() - known
    ours = {name: value for name, value in os.environ.items() if name not in foreign}
    problems = list(_strangers(ours, known | foreign))
    for name, settings in EVERYTHING.items():
        if name in wanted or (not wanted and _is_configured(settings, ours)):
            # Its prefix is the beginning of all others'; what is nobody's is found above.
            names = {} if settings is LocalSettings else ours
            problems += problems_of(settings, names) or list(_missing_files(settings()))
    return problems


def _is_configured(settings: type[BaseSettings], environment: Mapping[str, str]) -> bool:
    if settings is LocalSettings:
        return True
    prefix = str(settings.model_config.get("env_prefix"))
    return any(name.startswith(prefix) and value for name, value in environment.items())


def _compose_variables() -> set[str]:
    return set(re.findall(r"\$\{(AGENTFLUX_\w+)", _compose()))


def _compose() -> str:
    file = REPOSITORY / "docker-compose.yml"
    return file.read_text() if file.exists() else ""


def _strangers(environment: Mapping[str, str], known: set[str]) -> Iterator[str]:
    """Names that look like ours and belong to nobody. What is like none of ours may be somebody else's."""
    prefixes = tuple(
        str(settings.model_config.get("env_prefix")) for settings in EVERYTHING.values() if settings is not LocalSettings
    )
    for name in sorted(environment):
        if not name.startswith("AGENTFLUX_") or name.startswith(prefixes) or name in known:
            continue
        if close := get_close_matches(name, sorted(known), n=1, cutoff=0.8):
            yield f"{name} is no setting; did you mean {close[0]}?"


def _missing_files(settings: BaseSettings) -> Iterator[str]:
    for field in type(settings).model_fields:
        path = getattr(settings, field)
        if field.endswith("_file") and isinstance(path, Path) and not os.access(path, os.R_OK):
            yield f"{variable_of(type(settings), field)} is {path}, which cannot be read"


def reference() -> str:
    """The reference page, in Markdown."""
    return "\n".join([PAGE, *(_section(name, settings) for name, settings in EVERYTHING.items())])


def _section(name: str, settings: type[BaseSettings]) -> str:
    rows = [
        f"| `{variable_of(settings, field)}` | {_default(info.get_default())} | {_told(info.description)} |"
        for field, info in settings.model_fields.items()
    ]
    return "\n".join([f"## {name[0].upper()}{name[1:]}", "", "| variable | default | |", "|---|---|---|", *rows, ""])


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if value is None or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(REPOSITORY) if value.is_relative_to(REPOSITORY) else value.name
    return f"`{value}`"


def _told(description: str | None) -> str:
    return " ".join((description or "").replace("|", "\\|").split())


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m deploy.config", description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="say what is wrong with the environment")
    checking.add_argument("services", nargs="*", metavar="SERVICE", help=f"of {', '.join(SERVICES)}; all that are configured")
    checking.add_argument("--env-file", type=Path, help="NAME=value lines, as compose reads them, on top of the environment")
    commands.add_parser("reference", help="print the reference page")
    options = parser.parse_args(arguments)
    if options.command == "reference":
        print(reference(), end="")
        return 0
    if unknown := set(options.services) - set(SERVICES):
        parser.error(f"there is no service {sorted(unknown)[0]!r}; there are {', '.join(SERVICES)}")
    if options.env_file:
        try:
            os.environ.update(_read(options.env_file))
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"--env-file {options.env_file} cannot be read: {error}")
    problems = check(options.services)
    print("\n".join(problems) or "the settings can be used")
    return 1 if problems else 0


def _read(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): _on_this_machine(value.strip().strip("\"'")) for name, _, value in pairs}


def _on_this_machine(value: str) -> str:
    """A path in a container, such as /run/agentflux/api_key, as the path in the folder that compose mounts there."""
    for folder, inside in re.findall(r"^\s+- \./(\S+?):(/\S+?):ro$", _compose(), re.M):
        if value.startswith(f"{inside}/"):
            return str(REPOSITORY / folder / value.removeprefix(f"{inside}/"))
    return value


if __name__ == "__main__":
    sys.exit(main())
