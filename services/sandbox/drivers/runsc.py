"""The driver `runsc`: gVisor, a kernel in user space. The command's system calls never reach the host's kernel directly.

It needs root, and refuses to start anything until its self-probe has passed. Limits on memory exist only where a control group
can be made; what the probe could not see is declared.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from services.sandbox.drivers import advice, bundle, probe, verdict
from services.sandbox.drivers.cgroup import MemoryGroups, find_memory_groups
from services.sandbox.drivers.child import Child
from services.sandbox.drivers.command import etc_files, identity
from services.sandbox.drivers.driver import Capabilities, SandboxSpec
from services.sandbox.drivers.programs import Programs, files_outside, find_program, top_directories
from services.sandbox.drivers.proxy import EgressProxy
from services.sandbox.drivers.spec import refusal, relayed
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import MIB, Limits

# Bundles have secrets in them, so they are kept in memory.
BUNDLES = Path("/dev/shm")
# What gVisor needs for itself, in the same control group.
OWN_MEMORY_BYTES = 96 * MIB


@dataclass(frozen=True)
class _Machine:
    runsc: Path
    setpriv: Path
    uid: int
    host_kernel: str
    groups: MemoryGroups | None


class RunscDriver:
    """Starts commands with runsc, each in a bundle of its own."""

    def __init__(
        self, *, runsc: Path | None, programs: Programs, workspace: Path, sandbox_uid: int, limits: Limits, egress: EgressProxy
    ) -> None:
        self._configured_runsc = runsc
        self._programs = programs
        self._workspace = workspace
        self._sandbox_uid = sandbox_uid
        self._limits = limits
        self._egress = egress
        self._machine: _Machine | None = None
        self._problem = "the sandbox has not been probed yet"

    async def probe(self) -> Capabilities:
        """Tries the isolation from the inside."""
        try:
            machine = await asyncio.to_thread(self._look_around)
            found = await probe.twice(lambda: self._try(machine))
        except SandboxUnusable as error:
            self._machine, self._problem = None, error.message
            return Capabilities("runsc", problem=error.message)
        self._machine = machine
        return Capabilities("runsc", tuple(found.enforced), tuple(found.not_enforced))

    def resolve(self, program: str) -> Path:
        """Where a toolset's program is: a configured path, or its place in PATH."""
        return self._programs.resolve(program)

    def refuses(self, spec: SandboxSpec) -> str | None:
        """Names a field that cannot be enforced; all of them can be here, if they make sense at all."""
        return refusal("runsc", spec, self._programs.relay_python())

    async def start(self, spec: SandboxSpec) -> Child:
        """Starts `spec.command` isolated; there is no other way to start it."""
        if self._machine is None:
            raise SandboxUnusable(self._problem)
        if refused := self.refuses(spec):
            raise ToolsetNotReady(refused)
        return await self._start(spec, self._machine)

    async def _start(self, spec: SandboxSpec, machine: _Machine) -> Child:
        program = self.resolve(spec.command[0])
        command = relayed(spec, [str(program), *spec.command[1:]], self._programs.relay_python())
        shown = await asyncio.to_thread(files_outside, program)
        async with AsyncExitStack() as leftovers:
            proxy = await leftovers.enter_async_context(self._egress.door(spec.network)) if spec.network else None
            place = _own_directory() / secrets.token_hex(8)
            leftovers.callback(_remove_bundle, place)
            system = top_directories()
            _make_root(place / "root", spec, machine.uid, system)
            written = bundle.config(spec, command, root=place / "root", uid=machine.uid, system=system, shown=shown, proxy=proxy)
            (place / "config.json").write_text(json.dumps(written))
            outside = []
            if machine.groups is not None:
                group = machine.groups.create(spec.limits.memory_bytes + spec.limits.tmp_bytes + OWN_MEMORY_BYTES)
                leftovers.push_async_callback(group.vanish)
                outside = group.enter()
            process = await asyncio.create_subprocess_exec(
                # When we are killed, so is runsc, and it takes its sandbox along.
                *outside, machine.setpriv, "--pdeathsig", "KILL", machine.runsc,
                "--root", place / "state", "--network=none", "--ignore-cgroups", "--overlay2=none",
                *(["--host-uds=open"] if proxy else []), "run", "--bundle", place, place.name,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
            return Child(process, leftovers=leftovers.pop_all())
        raise AssertionError("an exit stack swallows nothing")

    def _look_around(self) -> _Machine:
        runsc, setpriv = find_program("runsc", self._configured_runsc), find_program("setpriv")
        if runsc is None:
            raise SandboxUnusable(advice.no_runsc(self._configured_runsc))
        if setpriv is None:
            raise SandboxUnusable(advice.NO_UTIL_LINUX)
        if os.geteuid() != 0:
            raise SandboxUnusable(advice.RUNSC_NEEDS_ROOT)
        if not self._workspace.is_dir():
            raise SandboxUnusable(advice.no_workspace(self._workspace))
        _clear_bundles()
        uid = identity(os.geteuid(), self._workspace.stat().st_uid, self._sandbox_uid)
        return _Machine(runsc, setpriv, uid, Path("/proc/version").read_text(), find_memory_groups())

    async def _try(self, machine: _Machine) -> verdict.Verdict:
        with probe.canary() as canary:
            child = await self._start(probe.spec(self._workspace, canary, probe.SCRIPT), machine)
            facts, errors = await probe.said(child)
            # There is one limit for the whole sandbox, and it ends with it.
            child = await self._start(probe.spec(self._workspace, canary, probe.MEMORY_SCRIPT), machine)
            survived, _ = await probe.said(child)
        facts["together"] = "free" if survived.get("memory") == "free" or machine.groups is None else "limited"
        if "done" not in facts:
            raise SandboxUnusable(advice.no_gvisor(errors, runsc=machine.runsc))
        if facts.get("workspace") != "writable":
            raise SandboxUnusable(advice.workspace_not_writable(self._workspace, machine.uid))
        found = verdict.judge_gvisor(facts, machine.host_kernel, self._limits)
        if found.failures:
            raise SandboxUnusable(f"gVisor does not isolate on this machine: {'; '.join(found.failures)}")
        return found


def _own_directory() -> Path:
    directory = BUNDLES / f"agentflux-runsc-{os.getpid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _remove_bundle(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    # The last one takes the directory along.
    with suppress(OSError):
        place.parent.rmdir()


def _clear_bundles() -> None:
    """Removes what services that were killed have left."""
    for directory in BUNDLES.glob("agentflux-runsc-*"):
        if not Path(f"/proc/{directory.name.rpartition('-')[2]}").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _make_root(root: Path, spec: SandboxSpec, uid: int, system: dict[str, str | None]) -> None:
    """The root file system: links, a small /etc and the secrets. All else is mounted over it."""
    root.mkdir(parents=True)
    for path, target in system.items():
        if target is not None:
            (root / path.lstrip("/")).symlink_to(target)
    for path, text in etc_files(uid).items():
        file = root / path.lstrip("/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    kept = root / "run" / "secrets"
    kept.mkdir(parents=True)
    for name, content in spec.secrets.items():
        file = kept / name
        file.write_bytes(content)
        os.chown(file, uid, uid)
        file.chmod(0o400)
