"""The driver `external`: the container or pod that the service runs in is the boundary, and the self-probe must find one.

What a plain user may do for itself is added for each command: a filter on system calls that leaves it no network and no signal to
the service, limits, and a guard, its parent, that ends its whole tree. Sessions inside one container are not isolated from each
other: where one kills the guard of another, we do what that was there for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path

from services.sandbox.drivers import advice, confine, probe, seccomp, verdict
from services.sandbox.drivers.child import Child
from services.sandbox.drivers.descriptors import memory_files
from services.sandbox.drivers.driver import Capabilities, SandboxSpec
from services.sandbox.drivers.programs import Programs
from services.sandbox.drivers.spec import environment, impossible
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import Limits

# The kernel counts them per user, so a session's own limit would count all other sessions and the service itself.
ALL_PROCESSES = 4096
ORPHANS_TRIES, ORPHANS_INTERVAL_S = 200, 0.01


class ExternalDriver:
    """Starts commands in the container that the service itself runs in."""

    def __init__(self, *, programs: Programs, workspace: Path, limits: Limits) -> None:
        self._programs = programs
        self._workspace = workspace
        self._limits = limits
        self._syscalls: bytes | None = None
        self._problem = "the sandbox has not been probed yet"
        self._starting = 0
        self._guards: set[asyncio.subprocess.Process] = set()

    async def probe(self) -> Capabilities:
        """Looks from the inside of a command whether there is a container around it."""
        try:
            if not self._workspace.is_dir():
                raise SandboxUnusable(advice.no_workspace(self._workspace))
            confine.prctl(confine.PR_SET_DUMPABLE, 0)
            self._take_in_orphans()
            rules = chain(seccomp.common(), seccomp.no_network(), seccomp.no_signals_to((os.getpid(), confine.OWN_PID)))
            syscalls = seccomp.program(rules)
            found = await probe.twice(lambda: self._try(syscalls))
        except SandboxUnusable as error:
            self._syscalls, self._problem = None, error.message
            return Capabilities("external", problem=error.message)
        self._syscalls = syscalls
        return Capabilities("external", tuple(found.enforced), tuple(found.not_enforced))

    def resolve(self, program: str) -> Path:
        """Where a toolset's program is: a configured path, or its place in PATH."""
        return self._programs.resolve(program)

    def refuses(self, spec: SandboxSpec) -> str | None:
        """Names a field that needs a boundary around this one command, which the container around all of them cannot be."""
        if problem := impossible(spec):
            return f"the driver external cannot do what the toolset asks; {problem}"
        if spec.secrets:
            return "the driver external cannot enforce secrets, files for one server: hand them over as: environment"
        if spec.network:
            return (
                "the driver external cannot enforce network, a list of destinations for one server: use the driver bwrap or runsc"
            )
        for mount in spec.mounts:
            if mount.source.resolve() != Path(mount.target) or os.access(mount.target, os.W_OK) != mount.writable:
                how = "writable" if mount.writable else "read-only"
                return (
                    f"the driver external cannot enforce mounts: mount {mount.source} into the container at {mount.target}, {how}"
                )
        return None

    async def start(self, spec: SandboxSpec) -> Child:
        """Starts `spec.command` confined; there is no other way to start it."""
        if self._syscalls is None:
            raise SandboxUnusable(self._problem)
        if refused := self.refuses(spec):
            raise ToolsetNotReady(refused)
        return await self._start(spec, self._syscalls)

    async def _start(self, spec: SandboxSpec, syscalls: bytes) -> Child:
        # There is one view of files for all, so the two places of a sandbox become paths of the container.
        places = {"/toolset": spec.toolset, "/workspace": spec.workspace}
        program, *arguments = [_placed(part, places) for part in spec.command]
        variables = {name: _placed(value, places) for name, value in environment(spec).items()}
        limits = (spec.limits.memory_bytes, ALL_PROCESSES, spec.limits.open_files, spec.limits.file_bytes)
        with memory_files({"syscalls": syscalls}) as opened, self._announced():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", confine.__file__, str(os.getpid()), str(opened["syscalls"]), *map(str, limits),
                str(self.resolve(program)), *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=variables, cwd=spec.workspace or "/tmp", start_new_session=True, pass_fds=tuple(opened.values()),
            )  # fmt: skip
            self._guards.add(process)
        leftovers = AsyncExitStack()
        leftovers.push_async_callback(self._without_orphans)
        return Child(process, end=signal.SIGTERM, leftovers=leftovers)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """Around the birth of a guard: until its pid is known it looks like an orphan."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self._end_orphans()

    def _take_in_orphans(self) -> None:
        """Sessions can kill each other's guards; what a guard leaves behind then becomes a child of ours."""
        try:
            confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        except OSError:
            raise SandboxUnusable(advice.NO_SUBREAPER) from None
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._end_orphans)

    async def _without_orphans(self) -> None:
        for _ in range(ORPHANS_TRIES):
            if not self._end_orphans():
                return
            await asyncio.sleep(ORPHANS_INTERVAL_S)

    def _end_orphans(self) -> bool:
        """Kills what has become our child and is no guard, and all below it. Whether there may be more of it."""
        if self._starting:
            return True
        self._guards = {guard for guard in self._guards if guard.returncode is None}
        parents = confine.parents()
        guards = {guard.pid for guard in self._guards}
        orphans = {pid for pid, parent in parents.items() if parent == os.getpid()} - guards
        for pid in orphans | confine.below(orphans, parents):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return bool(orphans)

    async def _try(self, syscalls: bytes) -> verdict.Verdict:
        asked = SandboxSpec(
            command=("/bin/sh", "-c", probe.CONTAINER_SCRIPT + probe.SCRIPT + probe.MEMORY_SCRIPT),
            workspace=self._workspace,
            limits=probe.PROBE_LIMITS,
            environment={"CANARY": "/", "WORKSPACE": "/workspace", "PYTHON": sys.executable, "SERVICE": str(os.getpid())},
        )
        facts, errors = await probe.said(await self._start(asked, syscalls))
        if "done" not in facts:
            raise SandboxUnusable(f"a command could not be confined: {errors.splitlines()[-1][:300] if errors else 'no message'}")
        if facts.get("workspace") != "writable":
            raise SandboxUnusable(advice.workspace_not_writable(self._workspace, os.geteuid()))
        found = verdict.judge_container(facts, self._limits)
        if found.failures:
            raise SandboxUnusable(advice.no_container("; ".join(found.failures)))
        return found


def _placed(text: str, places: dict[str, Path | None]) -> str:
    for inside, outside in places.items():
        if outside is not None and (text == inside or text.startswith(f"{inside}/")):
            return f"{outside}{text.removeprefix(inside)}"
    return text
