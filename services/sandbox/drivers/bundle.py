"""A spec as an OCI bundle: config.json and what stands in the root file system. Data in, data out; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from services.sandbox.drivers.driver import SandboxSpec
from services.sandbox.drivers.spec import EGRESS, RELAY, RELAY_SCRIPT, environment, working_directory
from services.sandbox.limits import Limits
from services.shared.contracts.tools import JsonObject


def config(
    spec: SandboxSpec,
    command: Sequence[str],
    *,
    root: Path,
    uid: int,
    system: Mapping[str, str | None],
    shown: Sequence[Path],
    proxy: Path | None,
) -> JsonObject:
    """The config.json. `system` are the top directories as `programs.top_directories` gives them, `shown` files of the host.

    It holds the secrets of the environment: keep it in memory, where only root reads.
    """
    tmp = [_mount("tmpfs", "tmpfs", path, f"size={spec.limits.tmp_bytes}", "mode=1777") for path in ("/tmp", "/dev/shm")]
    directories = [_bind(Path(path), path) for path in ("/usr", *(path for path, target in system.items() if target is None))]
    mounts = [_mount("proc", "proc", "/proc"), *tmp, *directories, *(_bind(file, str(file)) for file in shown)]
    if spec.toolset is not None:
        mounts.append(_bind(spec.toolset, "/toolset"))
    mounts += [_bind(mount.source.resolve(), mount.target, writable=mount.writable) for mount in spec.mounts]
    if proxy is not None:
        mounts += [_bind(proxy.parent, EGRESS), _bind(RELAY_SCRIPT, RELAY)]
    if spec.workspace is not None:
        mounts.append(_bind(spec.workspace, "/workspace", writable=True))
    return {
        "ociVersion": "1.0.0",
        "hostname": "sandbox",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": uid, "gid": uid},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in environment(spec).items()],
            "cwd": working_directory(spec),
            "noNewPrivileges": True,
            "capabilities": {},
            "rlimits": _rlimits(spec.limits),
        },
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _mount(kind: str, source: str, target: str, *options: str) -> JsonObject:
    return {"type": kind, "source": source, "destination": target, "options": list(options)}


def _bind(source: Path, target: str, *, writable: bool = False) -> JsonObject:
    return _mount("bind", str(source), target, "rbind", "rw" if writable else "ro", "nosuid", "nodev")


def _rlimits(limits: Limits) -> list[JsonObject]:
    values = {
        "RLIMIT_DATA": limits.memory_bytes,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_CORE": 0,
    }
    return [{"type": name, "hard": value, "soft": value} for name, value in values.items()]
