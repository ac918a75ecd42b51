"""The driver `bwrap`: bubblewrap, as root or not. It refuses to start anything until its self-probe has passed.

It covers files, network, processes, rights and limits as `verdict.judge` lists them; it does not cover bugs of the kernel
which all sandboxes share with the host.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import structlog

from services.sandbox.drivers import advice, command, probe, seccomp, verdict
from services.sandbox.drivers.cgroup import MemoryGroup, MemoryGroups, find_memory_groups
from services.sandbox.drivers.child import Child, end, handle
from services.sandbox.drivers.command import Data, Layout, Mode
from services.sandbox.drivers.descriptors import Handshake, memory_files
from services.sandbox.drivers.driver import Capabilities, SandboxSpec
from services.sandbox.drivers.orphans import end_orphans
from services.sandbox.drivers.programs import Programs, files_outside, find_bwrap, find_program, top_directories
from services.sandbox.drivers.proxy import EgressProxy
from services.sandbox.drivers.spec import refusal, relayed
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import Limits

log = structlog.get_logger()


@dataclass(frozen=True)
class _Machine:
    layout: Layout
    mode: Mode
    syscalls: bytes
    groups: MemoryGroups | None


class BwrapDriver:
    """Starts commands with bubblewrap, in the strictest mode that this machine allows."""

    def __init__(
        self,
        *,
        bwrap: Path | None,
        programs: Programs,
        workspace: Path,
        sandbox_uid: int,
        limits: Limits,
        egress: EgressProxy,
    ) -> None:
        self._configured_bwrap = bwrap
        self._programs = programs
        self._workspace = workspace
        self._egress = egress
        self._sandbox_uid = sandbox_uid
        self._limits = limits
        self._machine: _Machine | None = None
        self._mode: Mode | None = None
        self._shown: dict[Path, list[Path]] = {}
        self._problem = "the sandbox has not been probed yet"

    async def probe(self) -> Capabilities:
        """Tries the modes that this user can have, strictest first, and keeps the first that isolates.

        What was kept once is kept: a later probe never settles for less, and a stricter mode that failed is declared.
        """
        try:
            layout = self._look_around()
            syscalls = seccomp.program(seccomp.common())
        except SandboxUnusable as error:
            return self._unusable(error.message)
        groups = await asyncio.to_thread(find_memory_groups)
        if ended := await asyncio.to_thread(end_orphans, layout.bwrap):
            log.warning("sandboxes of a service that was killed are ended", sandboxes=ended)
        modes = [Mode.NESTED, Mode.PRIVILEGED] if os.geteuid() == 0 else [Mode.USER]
        problems = []
        for mode in modes if self._mode is None else [self._mode]:
            try:
                machine = _Machine(layout, mode, syscalls, groups)
                found = await probe.twice(partial(self._try, machine))
            except SandboxUnusable as error:
                problems.append(error.message)
                continue
            self._machine, self._mode = machine, mode
            not_enforced = [*found.not_enforced, *(f"a user namespace of its own: {problem}" for problem in problems)]
            return Capabilities(f"bwrap ({mode.value})", tuple(found.enforced), tuple(not_enforced))
        return self._unusable(problems[0])

    def resolve(self, program: str) -> Path:
        """Where a toolset's program is: a configured path, or its place in PATH."""
        return self._programs.resolve(program)

    def refuses(self, spec: SandboxSpec) -> str | None:
        """Names a field that cannot be enforced; all of them can be here, if they make sense at all."""
        return refusal("bwrap", spec, self._programs.relay_python())

    async def start(self, spec: SandboxSpec) -> Child:
        """Starts `spec.command` isolated; there is no other way to start it."""
        if self._machine is None:
            raise SandboxUnusable(self._problem)
        if refused := self.refuses(spec):
            raise ToolsetNotReady(refused)
        return await self._start(spec, self._machine)

    async def _start(self, spec: SandboxSpec, machine: _Machine) -> Child:
        async with AsyncExitStack() as leftovers:
            proxy = await leftovers.enter_async_context(self._egress.door(spec.network)) if spec.network else None
            group = None
            if machine.groups is not None:
                group = await _memory_group(machine.groups, spec.limits)
                leftovers.push_async_callback(group.vanish)
            process, first = await self._bubblewrap(spec, machine, group, proxy)
            # The kernel ends the pid namespace with its first process, so no daemon inside survives that. Bubblewrap then
            # collects the dead and follows; killed itself, it would leave a zombie to whoever is init here.
            return Child(process, target=first, leftovers=leftovers.pop_all())
        raise AssertionError("an exit stack swallows nothing")

    async def _bubblewrap(
        self, spec: SandboxSpec, machine: _Machine, group: MemoryGroup | None, proxy: Path | None
    ) -> tuple[asyncio.subprocess.Process, int | None]:
        layout, mode = machine.layout, machine.mode
        program = self.resolve(spec.command[0])
        shown = await self._files_of(program)
        if mode is Mode.NESTED:
            shown = sorted({*shown, *await self._files_of(layout.bwrap)})
        run = relayed(spec, [str(program), *spec.command[1:]], self._programs.relay_python())
        with ExitStack() as opened:
            files = opened.enter_context(
                memory_files({path: text.encode() for path, text in command.etc_files(layout.uid).items()})
            )
            secrets = opened.enter_context(memory_files(spec.secrets))
            syscalls = opened.enter_context(memory_files({"syscalls": machine.syscalls}))["syscalls"]
            outer = command.mounts(spec, layout, mode, data=Data(files, secrets), shown=shown, proxy=proxy)
            arguments = {"outer": outer, "final": command.final(spec, syscalls=syscalls)}
            packed = opened.enter_context(
                memory_files({name: b"".join(os.fsencode(text) + b"\0" for text in texts) for name, texts in arguments.items()})
            )
            final = [] if mode is Mode.NESTED else ["--args", str(packed["final"])]
            handshake = opened.enter_context(Handshake())
            # No preexec_fn, user= or group=: Python code between fork and exec crashes in a process that runs gRPC.
            process = await asyncio.create_subprocess_exec(
                *(group.enter() if group and group.quick else []),
                layout.bwrap, "--info-fd", str(handshake.info), "--block-fd", str(handshake.block),
                "--args", str(packed["outer"]), *final, "--",
                *command.inside(run, layout, mode, spec.limits, final=packed["final"], secrets=list(secrets)),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                # Bubblewrap's first process shows its environment to the sandbox, so it gets none.
                env={}, cwd="/", start_new_session=True,
                pass_fds=(*files.values(), *secrets.values(), *packed.values(), syscalls, handshake.info, handshake.block),
            )  # fmt: skip
            beginning = asyncio.create_task(self._begin(process, handshake, group))
            try:
                return process, await asyncio.shield(beginning)
            except BaseException:
                # Whoever gave up waits for the few milliseconds until the first process is known: bubblewrap killed before it
                # has let that one go leaves it behind.
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({beginning})
                if beginning.exception() is None:
                    end(beginning.result(), process)
                raise

    async def _begin(self, process: asyncio.subprocess.Process, handshake: Handshake, group: MemoryGroup | None) -> int | None:
        """Lets the first process go on once it is in its control group; a pidfd of it."""
        pid = await handshake.first_process()
        first = None if pid is None else handle(pid)
        if pid is not None and group is not None and not group.quick:
            try:
                await asyncio.to_thread(group.enclose, pid)
            except OSError as error:
                end(first, process)
                raise _no_group(group.path.parent, error) from None
        handshake.go_on()
        return first

    async def _files_of(self, program: Path) -> list[Path]:
        if program not in self._shown:
            self._shown[program] = await asyncio.to_thread(files_outside, program)
        return self._shown[program]

    def _look_around(self) -> Layout:
        bwrap = find_bwrap(self._configured_bwrap)
        if bwrap is None:
            raise SandboxUnusable(advice.no_bwrap(self._configured_bwrap))
        setpriv, prlimit = find_program("setpriv"), find_program("prlimit")
        if setpriv is None or prlimit is None:
            raise SandboxUnusable(advice.NO_UTIL_LINUX)
        if not self._workspace.is_dir():
            raise SandboxUnusable(advice.no_workspace(self._workspace))
        uid = command.identity(os.geteuid(), self._workspace.stat().st_uid, self._sandbox_uid)
        return Layout(bwrap=bwrap, setpriv=setpriv, prlimit=prlimit, uid=uid, top=top_directories())

    async def _try(self, machine: _Machine) -> verdict.Verdict:
        layout, mode = machine.layout, machine.mode
        facts, errors = await self._facts(machine)
        if "done" not in facts:
            raise SandboxUnusable(advice.no_sandbox(errors, bwrap=layout.bwrap, uid=layout.uid, mode=mode))
        if facts.get("workspace") != "writable":
            raise SandboxUnusable(advice.workspace_not_writable(self._workspace, layout.uid, mode=mode))
        host = {f"ns_{kind}": os.readlink(f"/proc/self/ns/{kind}") for kind in verdict.NAMESPACES}
        found = verdict.judge(facts, host, mode, self._limits)
        if found.failures:
            raise SandboxUnusable(f"the sandbox does not isolate on this machine: {'; '.join(found.failures)}")
        return found

    async def _facts(self, machine: _Machine) -> tuple[dict[str, str], str]:
        with probe.canary() as canary:
            try:
                child = await self._start(probe.spec(self._workspace, canary, probe.SCRIPT + probe.MEMORY_SCRIPT), machine)
            except OSError as error:
                raise SandboxUnusable(f"{machine.layout.bwrap} cannot be started: {error.strerror}") from None
            return await probe.said(child)

    def _unusable(self, problem: str) -> Capabilities:
        self._machine, self._problem = None, problem
        return Capabilities("bwrap", problem=problem)


async def _memory_group(groups: MemoryGroups, limits: Limits) -> MemoryGroup:
    create = partial(groups.create, limits.memory_bytes + limits.tmp_bytes)
    try:
        group = create() if groups.quick else await asyncio.to_thread(create)
    except OSError as error:
        raise _no_group(groups.parent, error) from None
    if not group.quick:
        # Nobody waits for this one; whoever moves the first process into its group does not either then.
        asyncio.get_running_loop().run_in_executor(None, groups.hasten)
    return group


def _no_group(parent: Path, error: OSError) -> SandboxUnusable:
    return SandboxUnusable(f"the control group of a sandbox cannot be made below {parent}: {error.strerror}")
