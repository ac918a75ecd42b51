"""The command line of a sandbox: which mounts, namespaces and limits a spec becomes. Text in, text out; starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.drivers.spec import EGRESS, RELAY, RELAY_SCRIPT, environment, working_directory
from services.sandbox.limits import MIB, Limits

SECRETS = "/run/secrets"


class Mode(Enum):
    """How the sandbox loses its rights; which one works depends on who runs the service and on the kernel.

    `NESTED`: root makes the mounts, drops to a plain user, and that user enters a user namespace which forbids others.
    `PRIVILEGED`: the same without the user namespace, where the kernel does not let plain users have one.
    `USER`: a plain user makes everything inside a user namespace.
    """

    NESTED = "nested"
    PRIVILEGED = "privileged"
    USER = "user"


@dataclass(frozen=True)
class Layout:
    """What this machine has: the programs that make a sandbox, and the uid to run as.

    `top` says of /bin, /lib and the like whether they are links (to where) or directories (None).
    """

    bwrap: Path
    setpriv: Path
    prlimit: Path
    uid: int
    top: Mapping[str, str | None]


def etc_files(uid: int) -> dict[str, str]:
    """Contents of the smallest /etc that the C library and Node.js are content with."""
    return {
        "/etc/passwd": f"root:x:0:0::/:/bin/false\nsandbox:x:{uid}:{uid}::/tmp:/bin/false\n",
        "/etc/group": f"root:x:0:\nsandbox:x:{uid}:\n",
        "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


@dataclass(frozen=True)
class Data:
    """Open file descriptors by the path at which their contents appear inside; `secrets` only for the user inside."""

    files: Mapping[str, int]
    secrets: Mapping[str, int]


def mounts(spec: SandboxSpec, layout: Layout, mode: Mode, *, data: Data, shown: Sequence[Path], proxy: Path | None) -> list[str]:
    """The arguments of bubblewrap itself. `shown` are files of the host; `proxy` is the socket of the way out, if there is one.

    They contain host paths, so they belong into `--args FD`, where nobody inside can read them.
    """
    namespaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    if mode is Mode.USER:
        namespaces += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    arguments = [*namespaces, "--die-with-parent", "--new-session", "--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
    for path, target in layout.top.items():
        arguments += ["--symlink", target, path] if target else ["--ro-bind", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):
        arguments += ["--size", str(spec.limits.tmp_bytes), "--perms", "1777", "--tmpfs", path]
    arguments += _directory("/etc")
    for path, fd in data.files.items():
        # A plain file of the root, which is read-only in the end: a mount for each would take five times as long.
        arguments += ["--perms", "0444", "--file", str(fd), path]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # Each directory once, parents first; what bubblewrap makes by itself is open to its owner only.
    places = [*shown, *(Path(mount.target) for mount in spec.mounts)]
    parents = {parent for path in places for parent in path.parents if str(parent) not in ("/", "/tmp", "/etc")}
    for parent in sorted(parents):
        arguments += _directory(str(parent))
    for file in shown:
        arguments += ["--ro-bind", str(file), str(file)]
    if spec.toolset is not None:
        arguments += ["--ro-bind", str(spec.toolset), "/toolset"]
    for mount in spec.mounts:
        arguments += ["--bind" if mount.writable else "--ro-bind", str(mount.source.resolve()), mount.target]
    arguments += _run(data, proxy)
    if spec.workspace is not None:
        arguments += ["--bind", str(spec.workspace), "/workspace"]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", working_directory(spec)]


def final(spec: SandboxSpec, *, syscalls: int) -> list[str]:
    """The arguments of the last bubblewrap before the command; `syscalls` is the descriptor of the filter.

    They contain secrets. The programs before it need no environment, and run faster without a locale.
    """
    # Where that is the inner one, the sandbox is in its control group by then, whose name so does not show inside.
    arguments = ["--seccomp", str(syscalls), "--unshare-cgroup-try"]
    for name, value in environment(spec).items():
        arguments += ["--setenv", name, value]
    return arguments


def _run(data: Data, proxy: Path | None) -> list[str]:
    arguments = []
    if data.secrets or proxy is not None:
        arguments += _directory("/run")
    if data.secrets:
        arguments += ["--size", str(MIB), "--perms", "0755", "--tmpfs", SECRETS]
    for name, fd in data.secrets.items():
        arguments += ["--perms", "0400", "--file", str(fd), f"{SECRETS}/{name}"]
    if proxy is not None:
        arguments += ["--ro-bind", str(proxy.parent), EGRESS, "--ro-bind", str(RELAY_SCRIPT), RELAY]
    return arguments


def inside(
    command: Sequence[str], layout: Layout, mode: Mode, limits: Limits, *, final: int, secrets: Sequence[str] = ()
) -> list[str]:
    """What bubblewrap runs: the command, behind the programs that drop rights and set limits, in the order that counts.

    The limit on processes comes last, because inside a user namespace it counts for this sandbox alone. `final` is the
    descriptor of those arguments; where two bubblewraps run they are for the inner one, because the filter on system calls
    forbids what that still has to do.
    """
    # Bubblewrap makes files as root, and only their owner may read a secret.
    own = ["/bin/sh", "-c", f'chown {layout.uid}:{layout.uid} {SECRETS}/* && exec "$@"', "own"] if secrets else []
    drop = [
        *own, str(layout.setpriv), f"--reuid={layout.uid}", f"--regid={layout.uid}", "--clear-groups",
        "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--",
    ]  # fmt: skip
    forbid = [
        str(layout.bwrap), "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent",
        "--args", str(final), "--dev-bind", "/", "/", "--",
    ]  # fmt: skip
    bound = [str(layout.prlimit), *rlimits(limits), "--"]
    match mode:
        case Mode.NESTED:
            return [*drop, *forbid, *bound, *command]
        case Mode.PRIVILEGED:
            return [*drop, *bound, *command]
        case Mode.USER:
            return [*bound, *command]


def rlimits(limits: Limits) -> list[str]:
    """The options of prlimit."""
    return [
        f"--data={limits.memory_bytes}", f"--nproc={limits.processes}", f"--nofile={limits.open_files}",
        f"--fsize={limits.file_bytes}", "--core=0",
    ]  # fmt: skip


def identity(euid: int, workspace_uid: int, sandbox_uid: int) -> int:
    """The uid inside: our own, unless we are root; then the owner of the workspace, or `sandbox_uid` where that is root."""
    if euid != 0:
        return euid
    return workspace_uid or sandbox_uid


def _directory(path: str) -> list[str]:
    return ["--perms", "0755", "--dir", path]
