"""The sandbox's promises, tried from the inside by a server that would like to break them."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.sandbox.app import Sandbox
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import Unavailable
from tests.sandbox.conftest import Call

pytestmark = [pytest.mark.anyio, pytest.mark.real]

Inside = Callable[[str], Awaitable[str]]


async def test_no_port_of_the_host_can_be_reached(inside: Inside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "refused" in await inside(f"socket.create_connection(('127.0.0.1', {port}), 2)")


async def test_no_address_outside_can_be_reached(inside: Inside) -> None:
    assert "unreachable" in await inside("socket.create_connection(('169.254.169.254', 80), 2)")
    assert await inside("[name for _, name in socket.if_nameindex()]") == "['lo']"


async def test_abstract_sockets_of_the_host_cannot_be_reached(inside: Inside) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0agentflux-test")
        listening.listen()
        said = await inside("socket.socket(socket.AF_UNIX).connect('\\0agentflux-test')")
    assert "Connection refused" in said


async def test_files_of_the_host_are_invisible(inside: Inside) -> None:
    with tempfile.NamedTemporaryFile() as secret:
        os.chmod(secret.name, 0o644)
        assert await inside(f"os.path.exists({secret.name!r})") == "False"
    assert await inside("os.path.exists('/etc/shadow')") == "False"
    assert await inside(f"os.path.exists({str(Path(__file__))!r})") == "False"
    assert await inside("sorted(os.listdir('/etc'))") == "['group', 'hosts', 'ld.so.cache', 'nsswitch.conf', 'passwd']"


async def test_only_the_workspace_and_temporary_files_can_be_written(inside: Inside, settings: SandboxSettings) -> None:
    for place in ("/usr/x", "/x", "/etc/x", "/dev/x", "/toolset/server.py", "/etc/passwd"):
        assert "Error" in await inside(f"open({place!r}, 'a').write('x')"), place
    await inside("open('/workspace/note.txt', 'w').write('kept')")
    assert (settings.workspace_dir / "note.txt").read_text() == "kept"
    await inside("open('/tmp/note.txt', 'w').write('gone')")
    assert "note.txt" not in os.listdir("/tmp")


async def test_a_link_in_the_workspace_leads_nowhere_outside(inside: Inside) -> None:
    await inside("os.symlink('/etc/shadow', '/workspace/link')")
    assert "FileNotFoundError" in await inside("open('/workspace/link').read()")


async def test_the_command_has_no_rights_and_gets_none(inside: Inside) -> None:
    status = dict(
        line.split(":\t", 1) for line in eval(await inside("open('/proc/self/status').read().splitlines()")) if ":\t" in line
    )
    for held in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert status[held] == "0" * 16, held
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split()[0] != "0"
    assert "0" not in (await inside("os.getgroups()")).strip("[]").split(", ")


async def test_no_namespace_of_its_own_can_be_made(inside: Inside) -> None:
    for kind in ("--user", "--mount", "--net", "--map-root-user"):
        status = await inside(f"subprocess.run(['unshare', {kind!r}, 'true'], capture_output=True).returncode")
        assert status == "1", kind


async def test_processes_of_the_host_are_invisible(inside: Inside) -> None:
    pids = await inside("sorted(int(name) for name in os.listdir('/proc') if name.isdigit())")
    assert len(eval(pids)) < 10
    assert await inside("open('/proc/1/comm').read().strip()") == "bwrap"


async def test_the_environment_holds_nothing_of_the_service(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(eval(await inside("sorted(os.environ)"))) <= {"HOME", "LANG", "PATH", "PWD", "LC_CTYPE"}
    said = await inside("open('/proc/1/environ').read()")
    assert said == "" or "PermissionError" in said


async def test_no_file_descriptor_of_the_service_leaks(inside: Inside) -> None:
    # 3 is the directory being listed.
    assert await inside("sorted(os.listdir('/proc/self/fd'))") == "['0', '1', '2', '3']"
    for pid in ("1", "2"):
        listed = await inside(f"[os.readlink('/proc/{pid}/fd/' + fd) for fd in os.listdir('/proc/{pid}/fd')]")
        assert "memfd" not in listed
        assert "socket" not in listed


async def test_command_lines_inside_show_no_path_of_the_host(inside: Inside, settings: SandboxSettings) -> None:
    shown = await inside("open('/proc/1/cmdline').read()")
    assert str(settings.workspace_dir) not in shown
    assert str(settings.toolsets_dir) not in shown


async def test_another_server_is_out_of_reach(call: Call) -> None:
    await call("python", "open('/tmp/mine', 'w').write('x')", session="one")
    assert (await call("python", "os.path.exists('/tmp/mine')", session="two")).text == "False"
    assert (await call("python", "os.path.exists('/tmp/mine')", session="one")).text == "True"


async def test_temporary_files_and_file_size_are_bounded(inside: Inside) -> None:
    assert "Error" in await inside("open('/tmp/big', 'wb').write(b'x' * (80 * 1024 * 1024))")
    assert "Error" in await inside("open('/dev/shm/big', 'wb').write(b'x' * (80 * 1024 * 1024))")
    assert "File too large" in await inside("open('/workspace/big', 'wb').truncate(80 * 1024 * 1024)")


async def test_a_fork_bomb_meets_a_wall_and_others_go_on(call: Call) -> None:
    said = (await call("fork_bomb", session="bomb")).text
    children, why = said.split(" children, then ")
    assert int(children) < 24
    assert "unavailable" in why
    assert (await call("echo", "still here")).text == "still here"
    # Its children live as long as their sandbox does, and the limit is the user's: the next sandboxes would find none free.
    with pytest.raises(Unavailable):
        await call("exit", session="bomb")


async def test_capabilities_list_what_is_enforced_and_what_is_not(service: tuple[Sandbox, SandboxClient]) -> None:
    found = service[0].runner.capabilities
    expected = {"no capabilities", "no new privileges", "no further user namespaces", "filter on system calls"}
    assert expected <= set(found.enforced)
    assert "share of the processor" in found.not_enforced
    assert not any(uid in found.enforced for uid in ("non-root: uid 0", "non-root: uid ?"))
