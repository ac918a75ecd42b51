"""The self-probe: a script that tries the isolation from the inside, and the verdict on what it saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.sandbox.drivers.command import Mode
from services.sandbox.limits import MIB, Limits

# Small, so that each limit is reached in milliseconds.
PROBE_LIMITS = Limits(memory_bytes=48 * MIB, processes=32, file_bytes=1 * MIB, tmp_bytes=8 * MIB)

NAMESPACES = ("pid", "net", "ipc", "uts", "mnt")

# Prints one fact per line, as name=value. $CANARY is a file of the host that anybody could read.
SCRIPT = r"""
echo "uid=$(id -u)"
while read -r key value rest; do
  case $key in CapEff:|CapPrm:|CapBnd:|NoNewPrivs:) echo "${key%:}=$value";; esac
done < /proc/self/status
for kind in pid net ipc uts mnt; do echo "ns_$kind=$(readlink /proc/self/ns/$kind)"; done
echo "interfaces=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n')"
if [ -e "$CANARY" ]; then echo canary=visible; else echo canary=hidden; fi
for place in usr etc dev ''; do if (: > "/$place/.probe") 2>/dev/null; then echo "writable=/$place"; fi; done
if (: > /workspace/.agentflux-probe) 2>/dev/null; then rm -f /workspace/.agentflux-probe; echo workspace=writable; fi
if (: > /tmp/probe) 2>/dev/null; then echo tmp=writable; fi
echo "environ=$(cat /proc/1/environ 2>/dev/null | wc -c)"
if unshare --user true 2>/dev/null; then echo userns=possible; else echo userns=denied; fi
if head -c 200000000 /dev/zero 2>/dev/null | tail -n 1 >/dev/null 2>&1; then echo memory=free; else echo memory=limited; fi
if prlimit --nproc=1 timeout 5 true 2>/dev/null; then echo processes=free; else echo processes=limited; fi
if (head -c 2000000 /dev/zero > /tmp/big) 2>/dev/null; then echo files=free; else echo files=limited; fi
echo done=1
"""


@dataclass(frozen=True)
class Verdict:
    """`failures` are sentences on what is not isolated although it must be; with any of them the sandbox is not used."""

    enforced: list[str] = field(default_factory=list)
    not_enforced: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def facts_from(output: str) -> dict[str, str]:
    """The facts in what the script printed."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def judge(facts: Mapping[str, str], host_namespaces: Mapping[str, str], mode: Mode, limits: Limits) -> Verdict:
    """What the facts show. `host_namespaces` has the service's own `ns_*`; `limits` are those of real servers."""
    verdict = Verdict()

    def require(shown: bool, enforced: str, failure: str) -> None:
        if shown:
            verdict.enforced.append(enforced)
        else:
            verdict.failures.append(failure)

    def no_powers(*names: str) -> bool:
        return all(facts.get(name) == "0" * 16 for name in names)

    uid = facts.get("uid", "?")
    require(uid not in ("0", "?"), f"non-root: uid {uid}", "the command runs as root")
    require(no_powers("CapEff", "CapPrm"), "no capabilities", "the command keeps capabilities")
    require(facts.get("NoNewPrivs") == "1", "no new privileges", "setuid programs could give rights back")
    shared = [kind for kind in NAMESPACES if facts.get(f"ns_{kind}") in (None, host_namespaces.get(f"ns_{kind}"))]
    require(not shared, "own namespaces: " + ", ".join(NAMESPACES), f"namespaces shared with the host: {', '.join(shared)}")
    require(facts.get("interfaces") == "lo", "network: none", f"network interfaces: {facts.get('interfaces', 'unknown')}")
    require(facts.get("canary") == "hidden", "host files: hidden", "a file of the host is visible")
    require("writable" not in facts, "system: read-only", f"{facts.get('writable')} is writable")
    require(facts.get("environ") == "0", "the service's environment: hidden", "the environment of process 1 is readable")
    memory = f"memory: {limits.memory_bytes // MIB} MiB per process"
    require(facts.get("memory") == "limited", memory, "the limit on memory has no effect")
    everyone = "per sandbox" if mode is not Mode.PRIVILEGED else f"for all sandboxes of uid {uid} together"
    processes = f"processes: {limits.processes} {everyone}"
    require(facts.get("processes") == "limited", processes, "the limit on processes has no effect")
    require(facts.get("files") == "limited", f"file size: {limits.file_bytes // MIB} MiB", "the limit on file size has no effect")
    if not verdict.failures:
        verdict.enforced.extend(
            [
                f"temporary files: {limits.tmp_bytes // MIB} MiB",
                f"open files: {limits.open_files}",
                f"wall time: {limits.wall_s:g} s",
                f"output: {limits.output_bytes} bytes",
                "whole process tree ends with its call or session",
            ]
        )
    bounded = facts.get("userns") == "denied"
    (verdict.enforced if bounded else verdict.not_enforced).append("no further user namespaces")
    verdict.not_enforced.extend(
        [
            "memory of all processes of a sandbox together",
            "share of the processor",
            "size of the workspace, which all sessions share",
            "filter on system calls",
            "protection from bugs in the host's kernel",
        ]
    )
    return verdict
