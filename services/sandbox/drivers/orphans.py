"""Sandboxes that a killed service left behind, and how they are ended.

Bubblewrap dies with its service, and its child with bubblewrap; but one that is killed between making its child and letting it go
leaves the child waiting for ever, and one whose service died a moment earlier never hears of that. Neither has run a tool.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def end_orphans(bwrap: Path) -> int:
    """Kills each sandbox of this bubblewrap that belongs to nobody, and says how many there were."""
    program = os.stat(bwrap)
    ended = 0
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and _runs(int(folder.name), program) and _is_orphan(int(folder.name), program):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(folder.name), signal.SIGKILL)
                ended += 1
    return ended


def _is_orphan(pid: int, program: os.stat_result) -> bool:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    parent, ids = int(status["PPid"][0]), status["NSpid"]
    if len(ids) > 1 and ids[-1] == "1":
        # The first process of a namespace: its parent is the bubblewrap outside, for as long as there is one.
        return not _runs(parent, program)
    # One outside belongs to its service; in a container that may be process 1 itself.
    return len(ids) == 1 and parent == 1 and os.getpid() != 1


def _runs(pid: int, program: os.stat_result) -> bool:
    # By file and not by path, which inside a sandbox is another one.
    try:
        found = os.stat(_PROC / str(pid) / "exe")
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    # Others use bubblewrap, too, but not with these words (`command.inside`).
    ours = b"--info-fd" in words and any(word.endswith(b"/prlimit") for word in words)
    return ours and (found.st_dev, found.st_ino) == (program.st_dev, program.st_ino)
