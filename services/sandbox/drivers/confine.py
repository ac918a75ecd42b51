"""Runs one command of the driver `external` with fewer rights than the service has, and ends everything that it started.

`python -I -S confine.py SERVICE FILTER DATA PROCESSES FILES FILE_SIZE COMMAND…`: the pid of the service, the descriptor of the
filter on system calls, and four limits. It stays as the parent: all that the command starts, daemons too, become its children in
the end, and with SIGTERM, with the service or with the command they are killed. Its exit status is the command's, 128 and more
for a signal.
Only the standard library, because it starts once per server.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from contextlib import suppress

# Stands in the filter for our own pid, which nobody knows before we run.
OWN_PID = 0x7A6F6E65

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_SECCOMP_MODE_FILTER = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(service: int, descriptor: int, limits: list[int], command: list[str]) -> int:
    """The exit status, when nothing is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Nobody of our own user may read our environment or stop us in a debugger.
    prctl(PR_SET_DUMPABLE, 0)
    if os.getppid() != service:
        return 1
    with os.fdopen(descriptor, "rb") as file:
        program = file.read().replace(struct.pack("=I", OWN_PID), struct.pack("=I", os.getpid()))
    first = os.fork()
    if first == 0:
        become(command, limits, program)
    # Its pipes are the command's alone: while we held them nobody could see that it has closed them.
    nothing = os.open("/dev/null", os.O_RDWR)
    for pipe in (0, 1, 2):
        os.dup2(nothing, pipe)
    return guard(first)


def become(command: list[str], limits: list[int], program: bytes) -> None:
    """Turns this process into the command. Never returns."""
    os.setsid()
    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    for kind, limit in zip(kinds, [*limits, 0], strict=True):
        resource.setrlimit(kind, (limit, limit))
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of eight bytes, and where they are.
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def guard(first: int) -> int:
    """Waits for the end of `first` or for SIGTERM, then kills whatever is left."""
    status = None
    while status is None and signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) == signal.SIGCHLD:
        status = reaped().get(first)
    while children := below({os.getpid()}, parents()):
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
        status = reaped().get(first, status)
    if status is None:
        return 128 + signal.SIGKILL
    return status if status >= 0 else 128 - status


def reaped() -> dict[int, int]:
    """The children that have ended, and how: an exit status, or a signal below zero."""
    ended = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = os.waitstatus_to_exitcode(child[1])
    return ended


def parents() -> dict[int, int]:
    """The parent of every process that can be seen. When it dies, whoever is next above and takes in orphans has its place."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name, in parentheses, may hold anything; after the last of them come the state and the parent.
                found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def below(top: set[int], parents: dict[int, int]) -> set[int]:
    """Every process below those of `top`."""
    found = set(top)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - top


def prctl(option: int, value: int, argument: int = 0) -> None:
    """prctl(2).

    Raises:
        OSError: it failed.
    """
    if _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:7]]
    sys.exit(main(numbers[0], numbers[1], numbers[2:], sys.argv[7:]))
