"""What every driver promises about one command, tried with a real one; where drivers differ, the test says how."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.sandbox.drivers import cgroup, runsc, seccomp
from services.sandbox.drivers.driver import Driver, Mount, SandboxSpec
from services.sandbox.limits import MIB, Limits
from tests.sandbox.drivers import DRIVERS, made

pytestmark = [pytest.mark.anyio, pytest.mark.real]

LIMITS = Limits(memory_bytes=256 * MIB, tmp_bytes=16 * MIB)
PYTHON = "/usr/bin/python3"
# The call's number on this machine comes from libseccomp; the answer is the name of the error.
ATTEMPT = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
for name, number in (part.split("=") for part in sys.argv[1:]):
    status = libc.syscall(ctypes.c_long(int(number)), *[ctypes.c_ulong(0)] * 6)
    print(name, errno.errorcode[ctypes.get_errno()] if status == -1 else "allowed")
"""


@pytest.fixture(scope="module", params=DRIVERS)
async def driver(request: pytest.FixtureRequest, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return await made(request.param, tmp_path_factory.mktemp(request.param) / "workspace")


async def output(driver: Driver, spec: SandboxSpec, sent: bytes = b"") -> str:
    """All that the command prints, errors too."""
    child = await driver.start(spec)
    try:
        child.stdin.write(sent)
        child.stdin.close()
        said = await asyncio.wait_for(asyncio.gather(child.stdout.read(), child.stderr.read()), 30)
        return b"".join(said).decode("utf-8", "replace")
    finally:
        child.kill()
        await child.wait()


def shell(script: str, **fields: object) -> SandboxSpec:
    return replace(SandboxSpec(("/bin/sh", "-c", script), None, LIMITS), **fields)  # type: ignore[arg-type]


async def test_its_pipes_are_the_commands(driver: Driver) -> None:
    child = await driver.start(shell("cat; echo err >&2; exit 7"))
    child.stdin.write(b"through\n")
    child.stdin.close()
    assert await child.stdout.read() == b"through\n"
    assert await child.stderr.read() == b"err\n"
    assert await child.wait() == 7


async def test_without_a_workspace_there_is_none(driver: Driver) -> None:
    assert (await output(driver, shell("pwd; test -e /workspace || echo none"))).split() == ["/tmp", "none"]


async def test_secrets_are_files_that_only_the_command_reads(driver: Driver) -> None:
    show = f"{PYTHON} -c 'import os; s = os.stat(\"/run/secrets/token\"); print(oct(s.st_mode), s.st_uid == os.getuid())'"
    spec = shell(f"{show}; cat /run/secrets/token; cat /proc/*/cmdline", secrets={"token": b"s3cr3t"})
    said = await output(driver, spec)
    assert said.startswith("0o100400 True\ns3cr3t")
    assert said.count("s3cr3t") == 1
    assert "No such file" in await output(driver, shell("cat /run/secrets/token"))


async def test_a_secret_variable_shows_on_no_command_line(driver: Driver) -> None:
    spec = shell("echo $TOKEN; exec sleep 60", secret_environment={"TOKEN": "v4r14ble"})
    child = await driver.start(spec)
    try:
        assert await child.stdout.readline() == b"v4r14ble\n"
        assert processes_with("v4r14ble") == []
    finally:
        child.kill()
        await child.wait()


async def test_a_mount_is_read_only_unless_it_is_said_otherwise(driver: Driver, tmp_path: Path) -> None:
    for name in ("kept", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").chmod(0o666)
    mounts = (Mount(tmp_path / "kept", "/data/kept"), Mount(tmp_path / "open", "/open", writable=True))
    script = (
        "cat /data/kept/file /open/file; echo changed > /open/file; (echo changed > /data/kept/file) 2>/dev/null || echo ' no'"
    )
    assert await output(driver, shell(script, mounts=mounts)) == "keptopen no\n"
    assert (tmp_path / "open" / "file").read_text() == "changed\n"


async def test_processes_and_variables_of_the_host_are_invisible(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_VARIABLE", "c4n4ry")
    said = await output(driver, shell("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; env"))
    assert "c4n4ry" not in said
    assert "pytest" not in said


async def test_temporary_files_are_bounded_together(driver: Driver) -> None:
    script = "for i in 1 2 3 4 5; do head -c 5000000 /dev/zero > /tmp/$i || echo full; done 2>/dev/null"
    assert "full" in await output(driver, shell(script))


async def test_what_exploits_begin_with_is_denied(driver: Driver) -> None:
    library = seccomp._libseccomp()
    names = (
        "unshare", "mount", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "perf_event_open", "personality", "clone3", "setns",
        "pivot_root", "kexec_load", "open_by_handle_at", "process_vm_readv",
    )  # fmt: skip
    asked = [f"{name}={library.seccomp_syscall_resolve_name(name.encode())}" for name in names]
    said = await output(driver, SandboxSpec((PYTHON, "-c", ATTEMPT, *asked), None, LIMITS))
    answers = dict(line.split() for line in said.splitlines())
    assert set(answers) == set(names)
    if "bwrap" in type(driver).__name__.lower():
        assert set(answers.values()) == {"EPERM", "ENOSYS"}
        assert answers["clone3"] == answers["io_uring_setup"] == "ENOSYS"
    else:
        # They reach gVisor's own kernel, which has its own, harmless unshare and personality.
        assert "allowed" not in {answers[name] for name in ("bpf", "perf_event_open", "userfaultfd", "kexec_load", "keyctl")}


async def test_no_socket_leads_around_the_network_namespace(driver: Driver) -> None:
    tried = "\n  try: socket.socket(family, 3); print('made')\n  except OSError: print('no')"
    script = f"import socket\nfor family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET):{tried}"
    assert "made" not in await output(driver, SandboxSpec((PYTHON, "-c", script), None, LIMITS))


def processes_with(marker: str) -> list[str]:
    """Host processes whose command line has `marker`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


async def wait_for_none(marker: str) -> None:
    """Until no process of the host has `marker`."""
    for _ in range(500):
        if not processes_with(marker):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still there: {processes_with(marker)}")


def groups_of_ours() -> set[Path]:
    """The control groups of all sandboxes that this process has; a service may run in it, too."""
    groups = cgroup.find_memory_groups()
    return set() if groups is None else set(groups.parent.glob(f"agentflux-{os.getpid()}-*"))


# A daemon of a daemon, a session of its own with a child, and a command that ignores SIGTERM.
DAEMONS = """
(setsid setsid sleep 98765.{0} &)
setsid sh -c 'sleep 98765.{0} & sleep 98765.{0}' &
trap '' TERM
echo up
sleep 98765.{0}
"""


async def test_daemons_die_with_their_sandbox_and_nothing_is_left_of_it(driver: Driver) -> None:
    marker, before = f"98765.{os.getpid()}1", groups_of_ours()
    child = await driver.start(shell(DAEMONS.format(f"{os.getpid()}1")))
    assert await child.stdout.readline() == b"up\n"
    child.kill()
    await asyncio.wait_for(child.wait(), 5)
    await wait_for_none(marker)
    assert not list(runsc.BUNDLES.glob(f"agentflux-runsc-{os.getpid()}/*"))
    assert groups_of_ours() <= before


# Each below what one process may have.
HOLD = f'{PYTHON} -c \'import time; x = b"x" * 150_000_000; time.sleep(3); print("kept", flush=True)\''


async def test_all_processes_together_have_a_limit_on_memory(driver: Driver) -> None:
    if cgroup.find_memory_groups() is None:
        pytest.skip("the limit on memory of all processes together is NOT tested here: no control group can be made")
    said = await output(driver, shell(f"{HOLD} & {HOLD} & {HOLD} & {HOLD} & wait"))
    assert said.count("kept") < 4


async def test_they_have_it_where_a_process_is_moved_into_its_group_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with control groups of version 2; those of version 1 are entered by the process itself."""
    if cgroup.find_memory_groups() is None:
        pytest.skip("the limit on memory of all processes together is NOT tested here: no control group can be made")
    monkeypatch.setattr(cgroup.MemoryGroups, "quick", False)
    said = await output(await made("bwrap", tmp_path / "workspace"), shell(f"{HOLD} & {HOLD} & {HOLD} & {HOLD} & wait"))
    assert said.count("kept") < 4


RUNNER = """
import asyncio, sys
from pathlib import Path
from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.limits import Limits
from tests.sandbox.drivers import made
async def main():
    driver = await made(sys.argv[1], Path(sys.argv[2]))
    child = await driver.start(SandboxSpec(("/bin/sh", "-c", sys.argv[3]), None, Limits()))
    print((await child.stdout.readline()).decode(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("name", DRIVERS)
async def test_a_killed_service_takes_its_sandboxes_along(name: str, tmp_path: Path) -> None:
    marker = f"{os.getpid()}2"
    command = [sys.executable, "-c", RUNNER, name, str(tmp_path / "workspace"), DAEMONS.format(marker)]
    service = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert service.stdout is not None
    try:
        assert await asyncio.wait_for(service.stdout.readline(), 60) == b"up\n"
    finally:
        service.send_signal(signal.SIGKILL)
        await service.wait()
    await wait_for_none(f"98765.{marker}")
    # As the next service does with its first probe.
    runsc._clear_bundles()
    assert not list(runsc.BUNDLES.glob(f"agentflux-runsc-{service.pid}"))
    # A group can be removed once the last of its processes is gone, and bubblewrap itself may take a moment longer.
    for _ in range(100):
        groups = cgroup.find_memory_groups()
        if groups is None or not list(groups.parent.glob(f"agentflux-{service.pid}-*")):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the next service does not clear the control groups of one that was killed")


@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user's sandbox knows the name of its group")
async def test_the_name_of_its_control_group_does_not_show(driver: Driver) -> None:
    assert "agentflux" not in await output(driver, shell("cat /proc/self/cgroup"))
