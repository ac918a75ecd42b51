"""What a person is told when the machine is not ready."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.local.faults import Fault
from deploy.local.preflight import check_library, check_node, check_ports, check_sandbox, check_space, find_bwrap, find_valkey


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_taken_port_is_named_with_its_process() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Fault, match=rf"port {port} for the gateway is taken by process {os.getpid()}") as fault:
            check_ports({"gateway": port}, offset=100)
    assert "AGENTFLUX_PORT_OFFSET=200" in fault.value.next_step


def test_a_free_port_is_fine() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_ports({"gateway": port})


def test_a_full_disk_is_named_before_anything_is_made_on_it(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "there" / "yet", needed_mib=1)
    with pytest.raises(Fault, match=rf"{tmp_path} has \d+ MiB free; .* need 1000000000") as fault:
        check_space(tmp_path, needed_mib=10**9)
    assert "AGENTFLUX_RUN_DIR" in fault.value.next_step


def test_missing_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"Node\.js is not installed") as fault:
        check_node(path=str(tmp_path))
    assert "install Node.js 20" in fault.value.next_step


def test_old_node_is_named_with_its_version(tmp_path: Path) -> None:
    program(tmp_path, "node", "echo v18.19.0")
    with pytest.raises(Fault, match=r"is version v18\.19\.0"):
        check_node(path=str(tmp_path))


def test_missing_bubblewrap_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="bubblewrap is not installed") as fault:
        find_bwrap(path=str(tmp_path), packaged=False)
    assert "apt-get install bubblewrap" in fault.value.next_step


def test_bubblewrap_comes_with_the_package_where_the_system_has_none(tmp_path: Path) -> None:
    assert find_bwrap(path=str(tmp_path)).is_file()


def test_a_machine_that_forbids_namespaces_is_told_what_to_allow(tmp_path: Path) -> None:
    refusing = program(tmp_path, "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    with pytest.raises(Fault, match="No permissions to create new namespace") as fault:
        check_sandbox(refusing)
    assert "unprivileged_userns_clone" in fault.value.next_step


def test_a_valkey_on_the_path_goes_before_the_packaged_one(tmp_path: Path) -> None:
    assert find_valkey(path=str(tmp_path)).is_file()
    own = program(tmp_path, "redis-server", "true")
    assert find_valkey(path=str(tmp_path)) == own


def test_a_missing_system_library_is_named_with_its_package() -> None:
    check_library()
    with pytest.raises(Fault, match=r"libnone\.so\.7.*is not installed") as fault:
        check_library("libnone.so.7", "libnone7")
    assert "apt-get install libnone7" in fault.value.next_step
