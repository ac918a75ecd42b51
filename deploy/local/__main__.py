"""`python -m deploy.local up | down | status | ask QUESTION`: the commands behind the Makefile."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from deploy.config import LOCAL, check
from deploy.local.ask import ask
from deploy.local.faults import Fault
from deploy.local.plan import LocalSettings, plan
from deploy.local.progress import Progress
from deploy.local.supervisor import Supervisor, exclusive
from deploy.local.up import down, status, up

# A request that even an untrained 135M model gets right.
FIRST_QUESTION = "Read the file README.txt"


def main() -> None:
    """Runs one command; a fault is told in two sentences and ends with code 1."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up")
    commands.add_parser("down")
    commands.add_parser("status")
    commands.add_parser("ask").add_argument("question")
    commands.add_parser("supervise").add_argument("--valkey", type=Path)
    arguments = parser.parse_args()
    progress = Progress()
    try:
        settings = _settings()
        match arguments.command:
            case "up":
                _up(settings, progress)
            case "down":
                down(settings, progress)
            case "status":
                status(settings, progress)
            case "ask":
                asyncio.run(ask(settings, progress, arguments.question))
            case "supervise":
                _supervise(settings, arguments.valkey)
    except Fault as fault:
        raise SystemExit(f"\nagentflux: {fault}") from None
    except OSError as error:
        raise SystemExit(f"\nagentflux: {error}") from None


def _settings() -> LocalSettings:
    if problems := check([LOCAL]):
        raise Fault("; ".join(problems).removesuffix("?"), "mend these variables; deploy/CONFIGURATION.md has them all")
    return LocalSettings()


def _up(settings: LocalSettings, progress: Progress) -> None:
    fresh = up(settings, progress)
    progress.say("every service is ready" + ("; sending a first request" if fresh else ""))
    if refused := asyncio.run(ask(settings, progress, FIRST_QUESTION, max_steps=1)):
        raise Fault(
            f"everything runs, but the first call of a tool was refused: {refused[0]}",
            f"mend that ({settings.run_dir}/logs/sandbox.log), then `make up` again; `make down` stops what runs",
        )
    url = f"http://127.0.0.1:{settings.port('gateway')}/v1"
    key = ' -H "authorization: Bearer $AGENTFLUX_API_KEY"' if settings.api_key else ""
    whose = "the key of AGENTFLUX_API_KEY" if key else "any API key"
    body = json.dumps({"model": "filesystem", "messages": [{"role": "user", "content": FIRST_QUESTION}]})
    progress.show(
        f"\nready in {progress.elapsed_s:.0f} s\n"
        f"base URL   {url}   ({whose}; models: {settings.base_model}, filesystem)\n"
        f"try        curl {url}/chat/completions{key} -H 'content-type: application/json' -d '{body}'\n"
        f'ask        make ask Q="{FIRST_QUESTION}"\n'
        f"workspace  {settings.workspace_dir}\n"
        f"logs       {settings.run_dir}/logs\n"
        f"stop       make down"
    )


def _supervise(settings: LocalSettings, valkey: Path | None) -> None:
    with exclusive(settings.run_dir) as alone:
        if not alone:
            raise Fault(f"another supervisor runs in {settings.run_dir}", "stop it with `make down`")
        # The settings are all a child has to know; a key of the caller's for some other service is none of its business.
        os.environ.pop("OPENAI_API_KEY", None)
        asyncio.run(Supervisor(settings.run_dir, plan(settings, valkey=valkey)).run())


if __name__ == "__main__":
    main()
