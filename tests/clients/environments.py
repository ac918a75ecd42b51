"""What the client tests install: apart from .venv, for clients need versions that exclude each other.

Each environment is made once, as build/clients/<name>-<digest of what is in it>.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.architecture import ROOT

HERE = Path(__file__).parent
INSTALL_S = 240


@cache
def python_agent(script: str, requirements: str) -> list[str]:
    """The command that runs agents/`script` with what requirements/`requirements`.txt pins."""
    pins = HERE / "requirements" / f"{requirements}.txt"
    folder = _folder(requirements, pins.read_text(), sys.version)
    python = folder / "bin" / "python"
    if not _made(folder).exists():
        uv = Path(sys.executable).with_name("uv")
        _install(uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
        options = ("--quiet", "--no-deps", "--require-hashes", "--python", python)
        _install(uv, "pip", "install", *options, "--requirement", pins)
        _made(folder).touch()
    return [str(python), str(HERE / "agents" / script)]


@cache
def node_agent(script: str) -> list[str]:
    """The command that runs agents_node/`script` with what package-lock.json pins."""
    source = HERE / "agents_node"
    folder = _folder("node", (source / "package-lock.json").read_text())
    # Node looks for packages beside the script.
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if not _made(folder).exists():
        _install("npm", "ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _made(folder).touch()
    return ["node", str(folder / script)]


def _folder(name: str, *content: str) -> Path:
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    return ROOT / "build" / "clients" / f"{name}-{digest}"


def _made(folder: Path) -> Path:
    """Present when the environment is complete: an installation may have been interrupted."""
    return folder / "made"


def _install(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
