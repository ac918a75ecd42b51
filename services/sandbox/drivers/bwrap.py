"""The driver `bwrap`: bubblewrap, as root or not. It refuses to start anything until its self-probe has passed.

It covers files, network, processes, rights and limits as `probe.judge` lists them; it does not cover bugs of the kernel
which all sandboxes share with the host.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.sandbox.drivers import advice, command, probe
from services.sandbox.drivers.command import Layout, Mode
from services.sandbox.drivers.descriptors import InfoPipe, memory_files
from services.sandbox.drivers.driver import Capabilities, SandboxSpec
from services.sandbox.drivers.probe import Verdict
from services.sandbox.drivers.programs import files_outside, find_bwrap, find_program
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import Limits

PROBE_TIMEOUT_S = 20.0
RETRY_S = 1.0

_Pipe = TypeVar("_Pipe", asyncio.StreamReader, asyncio.StreamWriter)


class BwrapProcess:
    """A running sandbox; `pid` is bubblewrap's, `first` a handle on the first process inside, with which all others die."""

    def __init__(self, process: asyncio.subprocess.Process, first: int | None) -> None:
        self._process = process
        self._first = first
        self.stdin = _opened(process.stdin)
        self.stdout = _opened(process.stdout)
        self.stderr = _opened(process.stderr)

    @property
    def pid(self) -> int:
        """Of bubblewrap, on the host."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit status; above 128 it was a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        """The kernel ends the pid namespace with its first process, so no daemon inside survives this."""
        # Bubblewrap then collects the dead and follows. Killed itself, it would leave a zombie to whoever is init here.
        with suppress(ProcessLookupError):
            if self._first is None:
                self._process.kill()
            else:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def __del__(self) -> None:
        if self._first is not None:
            os.close(self._first)


@dataclass(frozen=True)
class _Machine:
    layout: Layout
    mode: Mode


class BwrapDriver:
    """Starts commands with bubblewrap, in the strictest mode that this machine allows."""

    def __init__(
        self, *, bwrap: Path | None, programs: dict[str, Path], workspace: Path, sandbox_uid: int, limits: Limits
    ) -> None:
        self._configured_bwrap = bwrap
        self._programs = programs
        self._workspace = workspace
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
        except SandboxUnusable as error:
            return self._unusable(error.message)
        modes = [Mode.NESTED, Mode.PRIVILEGED] if os.geteuid() == 0 else [Mode.USER]
        problems = []
        for mode in modes if self._mode is None else [self._mode]:
            try:
                verdict = await self._try_twice(_Machine(layout, mode))
            except SandboxUnusable as error:
                problems.append(error.message)
                continue
            self._machine, self._mode = _Machine(layout, mode), mode
            not_enforced = [*verdict.not_enforced, *(f"a user namespace of its own: {problem}" for problem in problems)]
            return Capabilities(f"bwrap ({mode.value})", tuple(verdict.enforced), tuple(not_enforced))
        return self._unusable(problems[0])

    def resolve(self, program: str) -> Path:
        """Where a toolset's program is: a configured path, or its place in PATH."""
        found = find_program(program, self._programs.get(program))
        if found is None:
            name = {"node": "Node.js"}.get(program, program)
            configured = f"; {self._programs[program]} is no program" if program in self._programs else ""
            raise ToolsetNotReady(
                f"{name} is not installed{configured}: install it (program {program!r} in PATH)"
                + (", or set AGENTFLUX_SANDBOX_NODE to its path" if program == "node" else "")
            )
        return found

    async def start(self, spec: SandboxSpec) -> BwrapProcess:
        """Starts `spec.command` isolated; there is no other way to start it."""
        if self._machine is None:
            raise SandboxUnusable(self._problem)
        return await self._start(spec, self._machine)

    async def _start(self, spec: SandboxSpec, machine: _Machine) -> BwrapProcess:
        layout, mode = machine.layout, machine.mode
        program = self.resolve(spec.command[0])
        shown = await self._files_of(program)
        if mode is Mode.NESTED:
            shown = sorted({*shown, *await self._files_of(layout.bwrap)})
        inside = command.inside([str(program), *spec.command[1:]], layout, mode, spec.limits)
        with memory_files(command.etc_files(layout.uid)) as data:
            arguments = command.mounts(spec, layout, mode, data=data, shown=shown)
            with memory_files({"arguments": "".join(f"{argument}\0" for argument in arguments)}) as packed, InfoPipe() as info:
                # No preexec_fn, user= or group=: Python code between fork and exec crashes in a process that runs gRPC.
                process = await asyncio.create_subprocess_exec(
                    layout.bwrap, "--info-fd", str(info.write), "--args", str(packed["arguments"]), "--", *inside,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                    # Bubblewrap's first process shows its environment to the sandbox, so it gets none.
                    env={}, cwd="/", pass_fds=(*data.values(), *packed.values(), info.write), start_new_session=True,
                )  # fmt: skip
                try:
                    return BwrapProcess(process, await info.first_process())
                except BaseException:
                    process.kill()
                    raise

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
        top = [Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64") if (Path("/") / name).exists()]
        links = {str(path): os.readlink(path) if path.is_symlink() else None for path in top}
        return Layout(bwrap=bwrap, setpriv=setpriv, prlimit=prlimit, uid=uid, top=links)

    async def _try_twice(self, machine: _Machine) -> Verdict:
        # A service that was paused for long (a suspended machine, a debugger) finds its probe timed out, and one that comes right
        # after a sandbox full of processes finds none free; once is no proof.
        try:
            return await self._try(machine)
        except SandboxUnusable:
            await asyncio.sleep(RETRY_S)
            return await self._try(machine)

    async def _try(self, machine: _Machine) -> Verdict:
        layout, mode = machine.layout, machine.mode
        with tempfile.NamedTemporaryFile(prefix="agentflux-canary-") as canary:
            os.chmod(canary.name, 0o644)
            spec = SandboxSpec(
                command=("/bin/sh", "-c", probe.SCRIPT),
                workspace=self._workspace,
                limits=probe.PROBE_LIMITS,
                environment={"CANARY": canary.name},
            )
            output, errors = await self._run(spec, machine)
        facts = probe.facts_from(output)
        if "done" not in facts:
            raise SandboxUnusable(advice.no_sandbox(errors, bwrap=layout.bwrap, uid=layout.uid, mode=mode))
        if facts.get("workspace") != "writable":
            raise SandboxUnusable(advice.workspace_not_writable(self._workspace, layout.uid, mode=mode))
        host = {f"ns_{kind}": os.readlink(f"/proc/self/ns/{kind}") for kind in probe.NAMESPACES}
        verdict = probe.judge(facts, host, mode, self._limits)
        if verdict.failures:
            raise SandboxUnusable(f"the sandbox does not isolate on this machine: {'; '.join(verdict.failures)}")
        return verdict

    async def _run(self, spec: SandboxSpec, machine: _Machine) -> tuple[str, str]:
        try:
            process = await self._start(spec, machine)
        except OSError as error:
            raise SandboxUnusable(f"{machine.layout.bwrap} cannot be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                process.stdin.close()
                output, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
                await process.wait()
        except TimeoutError:
            raise SandboxUnusable(f"the sandbox's self-probe did not end within {PROBE_TIMEOUT_S:g} s") from None
        finally:
            process.kill()
        return output.decode("utf-8", "replace"), errors.decode("utf-8", "replace").strip()

    def _unusable(self, problem: str) -> Capabilities:
        self._machine, self._problem = None, problem
        return Capabilities("bwrap", problem=problem)


def _opened(pipe: _Pipe | None) -> _Pipe:
    assert pipe is not None, "the process was started without pipes"
    return pipe
