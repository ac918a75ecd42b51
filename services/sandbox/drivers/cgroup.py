"""Memory of a whole sandbox: one control group per sandbox, where this machine lets us have any. Version 1 or 2."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
# Where the service itself goes in version 2.
_SERVICE = "agentflux-service"
VANISH_TRIES, VANISH_INTERVAL_S = 200, 0.01

# It becomes the command that follows, inside the group (0 is whoever writes); whatever the command starts is inside, too. Shells
# add these to the environment.
_ENTER = 'unset PWD OLDPWD SHLVL; echo 0 > "$0" && exec "$@"'


@dataclass(frozen=True)
class MemoryGroup:
    """One of `MemoryGroups`, at `path`, empty at first; `quick` as there."""

    path: Path
    quick: bool

    def enter(self) -> list[str]:
        """The beginning of a command line that is to run inside."""
        return ["/bin/sh", "-c", _ENTER, str(self.path / ("tasks" if self.quick else "cgroup.procs"))]

    def enclose(self, pid: int) -> None:
        """Moves that process into it; where it has ended already there is nothing left to bound.

        Raises:
            OSError: it cannot be moved.
        """
        with suppress(ProcessLookupError):
            (self.path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> bool:
        """Takes it away; False when it is not empty yet."""
        return _removed(self.path)

    async def vanish(self) -> None:
        """Takes it away as soon as the kernel has buried its last process, which may be a moment after that has ended."""
        for _ in range(VANISH_TRIES):
            if self.remove():
                return
            await asyncio.sleep(VANISH_INTERVAL_S)


@dataclass(frozen=True)
class MemoryGroups:
    """Makes groups below `parent`, which is our own group or one that was delegated to us."""

    parent: Path
    version: int

    @property
    def quick(self) -> bool:
        """Whether groups are made, and entered by processes themselves, without waiting.

        Elsewhere the kernel's lock on all moves waits 5 to 20 ms until every processor knows of it, and whoever makes a group
        waits for that. Version 1 spares a thread that moves itself alone (`cgroup_procs_write_start` in the kernel's sources).
        """
        return self.version == 1

    def create(self, limit_bytes: int) -> MemoryGroup:
        """A group whose processes and temporary files together may take `limit_bytes`; no swap.

        Raises:
            OSError: it cannot be made.
        """
        # Our pid, so that another service's groups below the same parent are not taken for leftovers of ours.
        group = self.parent / f"agentflux-{os.getpid()}-{secrets.token_hex(6)}"
        group.mkdir()
        most, with_swap, swap = (
            ("memory.max", "memory.swap.max", 0)
            if self.version == 2
            else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", limit_bytes)
        )
        try:
            (group / most).write_text(str(limit_bytes))
            # Where swap is not counted there is no such file.
            if (group / with_swap).exists():
                (group / with_swap).write_text(str(swap))
        except OSError:
            _removed(group)
            raise
        return MemoryGroup(group, self.quick)

    def hasten(self) -> None:
        """Makes an `enclose` that follows soon quick, by moving us to where we are.

        For a while after a move whoever takes the lock on all moves next need not wait (percpu_down_write and rcu_sync in the
        kernel).
        """
        with suppress(OSError):
            if own := _own(Path("/proc/self/cgroup").read_text(), MOUNT, self.version):
                (own / "cgroup.procs").write_text(str(os.getpid()))

    def clear(self) -> None:
        """Removes the groups of services that were killed; one in which something runs cannot be removed."""
        for group in self.parent.glob("agentflux-*-*"):
            if not Path(f"/proc/{group.name.split('-')[1]}").exists():
                _removed(group)


def find_memory_groups() -> MemoryGroups | None:
    """Where we can make groups, cleared of what others of our kind left there; None where the system does not let us."""
    groups = below(Path("/proc/self/cgroup").read_text(), MOUNT)
    if groups is not None:
        groups.clear()
    return groups


def below(memberships: str, mount: Path) -> MemoryGroups | None:
    """The same, from what /proc/self/cgroup says and from where the groups are mounted."""
    if own := _own(memberships, mount, 1):
        return _usable(MemoryGroups(own, 1))
    if own := _own(memberships, mount, 2):
        # Every probe asks again, and the first one has moved us.
        parent = own.parent if own.name == _SERVICE else own
        with suppress(OSError):
            _share_out_memory(parent)
            return _usable(MemoryGroups(parent, 2))
    return None


def _own(memberships: str, mount: Path, version: int) -> Path | None:
    """Our own group, for version 1 that of the memory controller; None where there is none of this version."""
    pattern, place = (r"^\d+:(?:[\w,]*,)?memory(?:,[\w,]*)?:(/.*)$", mount / "memory") if version == 1 else (r"^0::(/.*)$", mount)
    found = re.search(pattern, memberships, re.MULTILINE)
    return place / found[1].lstrip("/") if found else None


def _share_out_memory(own: Path) -> None:
    """Version 2 lets a group have either processes or limited groups below, so we move into one of our own first."""
    shared = own / "cgroup.subtree_control"
    if "memory" in shared.read_text().split():
        return
    if "memory" not in (own / "cgroup.controllers").read_text().split():
        raise FileNotFoundError("memory")
    service = own / _SERVICE
    service.mkdir(exist_ok=True)
    (service / "cgroup.procs").write_text(str(os.getpid()))
    shared.write_text("+memory")


def _usable(groups: MemoryGroups) -> MemoryGroups | None:
    try:
        groups.create(1 << 20).remove()
    except OSError:
        return None
    return groups


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
