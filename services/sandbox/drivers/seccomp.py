"""The filter on system calls: what no MCP server needs and exploits of the kernel begin with, as libseccomp builds it.

It is a list of what is denied; all else is left to the kernel's own checks. Docker's default profile is the model.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from services.sandbox.errors import SandboxUnusable

# Changes of namespaces, looks into other processes, and parts of the kernel that are seldom used and often broken.
_DENIED = (
    "acct", "add_key", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
    "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
    "keyctl", "lookup_dcookie", "mbind", "migrate_pages", "mount", "mount_setattr", "move_mount", "move_pages",
    "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "personality", "pidfd_getfd",
    "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot", "request_key",
    "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "sysfs", "syslog", "umount", "umount2",
    "unshare", "userfaultfd", "uselib", "ustat", "vhangup",
)  # fmt: skip
# To a program these have to look as if the kernel were older: it then does without. clone3 hides its flags from any filter.
_ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")

_NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_ALG, _AF_VSOCK = 1, 38, 40
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902
_PRIO_USER, _IOPRIO_WHO_USER = 2, 3

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_INT = 0xFFFFFFFF


@dataclass(frozen=True)
class Denial:
    """One rule: `call` gives `error` when argument number `argument`, seen through `mask`, is `value`, or always for None.

    Without `equal`: when the argument, all of it, is not `value`.
    """

    call: str
    error: int = errno.EPERM
    argument: int | None = None
    value: int = 0
    mask: int = _INT
    equal: bool = True


def common() -> Iterator[Denial]:
    """What every driver denies that has a kernel to protect."""
    yield from (Denial(call) for call in _DENIED)
    yield from (Denial(call, errno.ENOSYS) for call in _ABSENT)
    yield from (Denial("clone", argument=0, value=flag, mask=flag) for flag in _NAMESPACE_FLAGS)
    yield from (Denial("ioctl", argument=1, value=request) for request in (_TIOCSTI, _TIOCLINUX))
    # AF_VSOCK knows no network namespace on most kernels: it would reach the machine that hosts this one.
    yield from (Denial("socket", errno.EAFNOSUPPORT, 0, family) for family in (_AF_ALG, _AF_VSOCK))


def no_network() -> Iterator[Denial]:
    """For where there is no network namespace to be had: no socket can be made but those of unix."""
    # Not only the families of the internet carry its traffic (AF_SMC does), and which others there are is the kernel's affair.
    yield from (Denial(call, errno.EAFNOSUPPORT, 0, _AF_UNIX, equal=False) for call in ("socket", "socketpair"))


def no_signals_to(pids: tuple[int, ...]) -> Iterator[Denial]:
    """For where there is no pid namespace: these processes, and groups of them, cannot be signalled; limits, priority and
    processors are a process's own affair."""
    for call in ("kill", "tgkill", "rt_sigqueueinfo"):
        yield Denial(call, argument=0, value=0x80000000, mask=0x80000000)
        yield from (Denial(call, argument=0, value=pid) for pid in pids)
    yield from (Denial(call) for call in ("tkill", "rt_tgsigqueueinfo", "pidfd_send_signal"))
    # The kernel sends a signal by itself to whoever was named as the owner of a file.
    yield from (Denial("fcntl", argument=1, value=command) for command in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX))
    yield from (Denial("ioctl", argument=1, value=request) for request in (_FIOSETOWN, _SIOCSPGRP))
    # Zero is whoever calls, except where it stands for a user, which we have in common.
    for call in ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"):
        yield Denial(call, argument=0, value=0, equal=False)
    for call, user in (("setpriority", _PRIO_USER), ("ioprio_set", _IOPRIO_WHO_USER)):
        yield Denial(call, argument=0, value=user)
        yield Denial(call, argument=1, value=0, equal=False)


class _Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("first", ctypes.c_uint64), ("second", ctypes.c_uint64)]


def program(denials: Iterator[Denial]) -> bytes:
    """The filter as the kernel takes it, an array of `struct sock_filter` for this machine's architecture only.

    Raises:
        SandboxUnusable: libseccomp is not installed, or does not take a rule.
    """
    library = _libseccomp()
    context = library.seccomp_init(ctypes.c_uint32(_ALLOW))
    try:
        for denial in denials:
            number = library.seccomp_syscall_resolve_name(denial.call.encode())
            # Negative: this architecture, or this version of the library, has no such call; see the self-probe for the latter.
            if number >= 0 and (status := _add(library, context, number, denial)) not in (0, -errno.EEXIST):
                raise SandboxUnusable(f"libseccomp refuses a rule for {denial.call} ({os.strerror(-status)}): update libseccomp")
        descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "rb") as exported:
            if status := library.seccomp_export_bpf(context, descriptor):
                raise SandboxUnusable(f"libseccomp cannot build the filter ({os.strerror(-status)}): update libseccomp")
            exported.seek(0)
            return exported.read()
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, number: int, denial: Denial) -> int:
    action = ctypes.c_uint32(_ERRNO | denial.error)
    if denial.argument is None:
        return int(library.seccomp_rule_add_array(context, action, number, 0, None))
    # The kernel looks at the lower half of an int only, so a filter that compared all of it could be evaded by the upper half.
    if denial.equal:
        comparison = _Comparison(denial.argument, _MASKED_EQUAL, denial.mask, denial.value)
    else:
        comparison = _Comparison(denial.argument, _NOT_EQUAL, denial.value, 0)
    return int(library.seccomp_rule_add_array(context, action, number, 1, ctypes.byref(comparison)))


def _libseccomp() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise SandboxUnusable("libseccomp is not installed: install libseccomp2 with the system's package manager") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    return library
