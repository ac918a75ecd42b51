"""The driver `external`: nothing on the bare machine, and what it promises inside a container, which bubblewrap plays here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.sandbox.drivers.external import ExternalDriver
from services.sandbox.drivers.programs import Programs, find_bwrap
from services.sandbox.errors import SandboxUnusable
from services.sandbox.limits import Limits
from tests.sandbox.test_drivers import SPEC

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.anyio, pytest.mark.real]

CONTAINER = [
    "--unshare-all", "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc",
    "--dev", "/dev", "--remount-ro", "/dev", "--size", "16000000", "--tmpfs", "/tmp", "--dir", "/tmp/workspace",
    # A clone may lie below /tmp.
    "--ro-bind", str(ROOT), str(ROOT),
]  # fmt: skip

# Runs the driver and prints as JSON what each command said. "hostile" tries what the filter is there for.
INSIDE = """
import asyncio, json, os, sys, time
from pathlib import Path
from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.drivers.external import ExternalDriver
from services.sandbox.drivers.programs import Programs
from services.sandbox.limits import Limits

HOSTILE = '''
import ctypes, errno, fcntl, itertools, os, resource, signal, socket, sys
service, guard = int(sys.argv[1]), os.getppid()
def attempt(name, action):
    try: action()
    except OSError as error: print(name, error.strerror)
    else: print(name, "ALLOWED")
attempt("network", lambda: socket.socket(socket.AF_INET))
attempt("network6", lambda: socket.socket(socket.AF_INET6))
def sockets():
    for family, kind in itertools.product(set(range(64)) - {socket.AF_UNIX}, range(1, 6)):
        for make in (socket.socket, socket.socketpair):
            try: make(family, kind)
            except OSError as error:
                # What the kernel says of a family that the filter has let through.
                if error.errno != errno.EAFNOSUPPORT: return
            else: return
    raise OSError(errno.EAFNOSUPPORT, "no other family")
attempt("other families", sockets)
attempt("service", lambda: os.kill(service, signal.SIGKILL))
attempt("guard", lambda: os.kill(guard, signal.SIGKILL))
attempt("everybody", lambda: os.kill(-1, signal.SIGKILL))
attempt("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(service), signal.SIGKILL))
attempt("owner", lambda: fcntl.fcntl(0, fcntl.F_SETOWN, service))
attempt("limits", lambda: resource.prlimit(service, resource.RLIMIT_CPU, (1, 1)))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, service, 19))
attempt("everybodys priority", lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt("scheduler", lambda: os.sched_setscheduler(service, os.SCHED_IDLE, os.sched_param(0)))
attempt("scheduler's parameter", lambda: os.sched_setparam(service, os.sched_param(0)))
attempt("processors", lambda: os.sched_setaffinity(service, [0]))
os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)
os.sched_setaffinity(0, os.sched_getaffinity(0))
socket.socketpair()
attempt("environ", lambda: open(f"/proc/{service}/environ").read())
attempt("guards environ", lambda: open(f"/proc/{guard}/environ").read())
attempt("memory", lambda: open(f"/proc/{service}/mem", "r+b"))
attempt("namespace", lambda: ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and os.kill(-1, 0))
'''

async def said(driver, *command, **fields):
    child = await driver.start(SandboxSpec(command, workspace, Limits(), **fields))
    out, err = await asyncio.gather(child.stdout.read(), child.stderr.read())
    return (out + err).decode(), await child.wait()

def sleepers():
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try: found += open(f"/proc/{name}/cmdline", "rb").read().startswith(b"sleep")
            except OSError: pass
    return found

async def left_without_guard(driver, signal, *, kill):
    daemon = "(setsid setsid sleep 98765 &); sleep 98765 & echo $PPID; sleep 98765"
    child = await driver.start(SandboxSpec(("sh", "-c", daemon), workspace, Limits()))
    guard = (await child.stdout.readline()).decode().strip()
    while sleepers() < 3: await asyncio.sleep(0.01)
    # Another session, whose filter does not know of that guard.
    await said(driver, "sh", "-c", f"kill -{signal} {guard}")
    if kill: child.kill()
    async with asyncio.timeout(10): await child.wait()
    return sleepers()

async def main():
    driver = ExternalDriver(programs=Programs({}), workspace=workspace, limits=Limits())
    found = await driver.probe()
    answers = {"problem": found.problem, "enforced": found.enforced, "not_enforced": found.not_enforced}
    if not found.problem:
        answers["status"] = await said(driver, "sh", "-c", "exit 3")
        answers["signal"] = await said(driver, "sh", "-c", "kill -9 $$")
        answers["places"] = await said(driver, "sh", "-c", 'pwd; echo $0', "/workspace/x", secret_environment={"TOKEN": "t"})
        answers["variable"] = await said(driver, "sh", "-c", 'echo $TOKEN', secret_environment={"TOKEN": "t"})
        answers["hostile"] = await said(driver, sys.executable, "-I", "-c", HOSTILE, str(os.getpid()))
        daemons = "(setsid setsid sleep 98765 &); setsid sh -c 'sleep 98765 & sleep 98765' & trap '' TERM; echo up; sleep 98765"
        child = await driver.start(SandboxSpec(("sh", "-c", daemons), workspace, Limits()))
        await child.stdout.readline()
        while sleepers() < 4: await asyncio.sleep(0.01)
        child.kill()
        await child.wait()
        answers["left"] = sleepers()
        answers["guard killed"] = await left_without_guard(driver, "KILL", kill=False)
        answers["guard stopped"] = await left_without_guard(driver, "STOP", kill=True)
    print(json.dumps(answers))

workspace = Path(sys.argv[1])
asyncio.run(main())
"""


def run(*around: str, workspace: str = "/tmp/workspace") -> dict[str, Any]:
    """What the script says, run by the command `around` it."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.getcwd()}
    command = [*around, sys.executable, "-c", INSIDE, workspace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout)
    assert isinstance(answers, dict)
    return answers


def in_container(*options: str) -> dict[str, Any]:
    """What it says in a container that was made with more options."""
    return run(str(find_bwrap(None)), *CONTAINER, *options, "--")


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    return in_container()


async def test_on_the_bare_machine_it_serves_nothing(tmp_path: Path) -> None:
    problem = str(run(workspace=str(tmp_path))["problem"])
    assert "this is no container: the processes of the host are visible" in problem
    assert problem.endswith("or set AGENTFLUX_SANDBOX_DRIVER=bwrap")


async def test_nothing_is_started_before_the_probe(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnusable, match="has not been probed"):
        await ExternalDriver(programs=Programs({}), workspace=tmp_path, limits=Limits()).start(SPEC)


async def test_a_container_is_found_and_what_it_lacks_is_said(answers: dict[str, Any]) -> None:
    assert answers["problem"] == ""
    for promise in ("no capabilities", "filter on system calls", "network: none", "root file system: read-only"):
        assert promise in str(answers["enforced"])
    assert "isolation between the sessions inside: give each tenant a container of its own" in str(answers["not_enforced"])
    assert "shared memory" in str(answers["not_enforced"])
    assert "can write the trajectory log and registered functions" in str(answers["not_enforced"])


async def test_a_container_of_root_is_none() -> None:
    assert "the command runs as root" in in_container("--uid", "0", "--gid", "0")["problem"]


async def test_a_command_ends_with_its_own_status(answers: dict[str, Any]) -> None:
    assert answers["status"] == ["", 3]
    assert answers["signal"] == ["", 137]


async def test_the_places_of_a_sandbox_are_paths_of_the_container(answers: dict[str, Any]) -> None:
    assert answers["places"] == ["/tmp/workspace\n/tmp/workspace/x\n", 0]
    assert answers["variable"] == ["t\n", 0]


async def test_a_command_reaches_neither_the_network_nor_the_service(answers: dict[str, Any]) -> None:
    said, status = answers["hostile"]
    assert status == 0, said
    assert "ALLOWED" not in said
    assert len(said.splitlines()) == 18


async def test_daemons_die_with_their_command(answers: dict[str, Any]) -> None:
    assert answers["left"] == 0


@pytest.mark.parametrize("guard", ["guard killed", "guard stopped"])
async def test_a_session_that_loses_its_guard_to_another_one_ends_nevertheless(answers: dict[str, Any], guard: str) -> None:
    assert answers[guard] == 0
