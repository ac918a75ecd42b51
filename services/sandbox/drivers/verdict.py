"""The verdict on what a self-probe saw: what is enforced, what is not, and what must be and is not. Touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.sandbox.drivers.command import Mode
from services.sandbox.limits import MIB, Limits

NAMESPACES = ("pid", "net", "ipc", "uts", "mnt")


@dataclass(frozen=True)
class Verdict:
    """`failures` are sentences on what is not isolated although it must be; with any of them the sandbox is not used."""

    enforced: list[str] = field(default_factory=list)
    not_enforced: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def facts_from(output: str) -> dict[str, str]:
    """The facts in what the script printed."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


class _Judgement:
    """A verdict in the making."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts = facts
        self.verdict = Verdict()

    def require(self, shown: bool, enforced: str, failure: str) -> None:
        """Without this the sandbox is not used."""
        if shown:
            self.verdict.enforced.append(enforced)
        else:
            self.verdict.failures.append(failure)

    def declare(self, shown: bool, what: str) -> None:
        """This may be lacking, and is said either way."""
        (self.verdict.enforced if shown else self.verdict.not_enforced).append(what)

    def limited(self, fact: str) -> bool:
        """Whether the probe met that limit."""
        return self.facts.get(fact) == "limited"

    def rights(self) -> None:
        """Who the command is and what it may."""
        uid = self.facts.get("uid", "?")
        self.require(uid not in ("0", "?"), f"non-root: uid {uid}", "the command runs as root")
        powerless = all(self.facts.get(name) == "0" * 16 for name in ("CapEff", "CapPrm"))
        self.require(powerless, "no capabilities", "the command keeps capabilities")

    def kernel(self) -> None:
        """What is asked of the host's kernel, where it is the host's kernel that the command talks to."""
        self.require(self.facts.get("NoNewPrivs") == "1", "no new privileges", "setuid programs could give rights back")
        self.require(self.facts.get("Seccomp") == "2", "filter on system calls", "the filter on system calls is not in force")

    def files(self) -> None:
        """What of the host's files is there."""
        self.require(self.facts.get("canary") == "hidden", "host files: hidden", "a file of the host is visible")
        self.read_only()
        self.require(self.facts.get("secret") == "kept", "secrets: files for one server", "a secret cannot be read by its server")

    def read_only(self) -> None:
        """Whether the system's own directories are."""
        self.require("writable" not in self.facts, "system: read-only", f"{self.facts.get('writable')} is writable")

    def lonely(self) -> None:
        """Whether the only network is its own loopback."""
        only = self.facts.get("interfaces") == "lo"
        failure = f"network interfaces: {self.facts.get('interfaces', 'unknown')}"
        self.require(only, "network: none, or the listed destinations through a proxy", failure)

    def file_size(self, limits: Limits) -> None:
        """The limit on one file."""
        enforced = f"file size: {limits.file_bytes // MIB} MiB"
        self.require(self.limited("files"), enforced, "the limit on file size has no effect")

    def together(self, limits: Limits) -> None:
        """The limit on all processes."""
        bounded = f"memory: {(limits.memory_bytes + limits.tmp_bytes) // MIB} MiB of all processes and temporary files together"
        missing = "memory of all processes of a sandbox together, and shared memory: no control group can be made here"
        self.declare(self.limited("together"), bounded if self.limited("together") else missing)

    def finish(self, limits: Limits, *, not_enforced: list[str]) -> Verdict:
        """Adds what follows from the rest, if nothing failed."""
        if not self.verdict.failures:
            self.verdict.enforced.extend(
                [
                    f"open files: {limits.open_files}",
                    f"wall time: {limits.wall_s:g} s",
                    f"output: {limits.output_bytes} bytes",
                    "whole process tree ends with its call or session",
                ]
            )
        self.verdict.not_enforced.extend(["share of the processor", "size of the workspace", *not_enforced])
        return self.verdict


def private_memory(limits: Limits) -> str:
    """What a limit on the memory of one process covers: mappings that it shares are counted for none of those that have them."""
    return f"memory: {limits.memory_bytes // MIB} MiB per process, of private memory"


def judge(facts: Mapping[str, str], host_namespaces: Mapping[str, str], mode: Mode, limits: Limits) -> Verdict:
    """What the facts show of bubblewrap. `host_namespaces` has our own `ns_*`; `limits` are those of real servers."""
    found = _Judgement(facts)
    found.rights()
    found.kernel()
    shared = [kind for kind in NAMESPACES if facts.get(f"ns_{kind}") in (None, host_namespaces.get(f"ns_{kind}"))]
    own = "own namespaces: " + ", ".join(NAMESPACES)
    found.require(not shared, own, f"namespaces shared with the host: {', '.join(shared)}")
    found.lonely()
    found.files()
    found.require(facts.get("environ") == "0", "the service's environment: hidden", "the environment of process 1 is readable")
    found.require(found.limited("memory"), private_memory(limits), "the limit on memory has no effect")
    found.together(limits)
    everyone = "per sandbox" if mode is not Mode.PRIVILEGED else f"for all sandboxes of uid {facts.get('uid')} together"
    processes = f"processes: {limits.processes} {everyone}"
    found.require(found.limited("processes"), processes, "the limit on processes has no effect")
    found.file_size(limits)
    found.declare(facts.get("userns") == "denied", "no further user namespaces")
    found.verdict.enforced.append(f"temporary files: {limits.tmp_bytes // MIB} MiB")
    return found.finish(limits, not_enforced=["protection from bugs in the host's kernel"])


def judge_gvisor(facts: Mapping[str, str], host_kernel: str, limits: Limits) -> Verdict:
    """What the facts show of gVisor. `host_kernel` is the host's /proc/version, which nobody inside may see."""
    found = _Judgement(facts)
    found.rights()
    alien = facts.get("kernel", host_kernel.strip()) != host_kernel.strip()
    found.require(alien, "a kernel of its own, in user space", "the command talks to the host's kernel")
    found.lonely()
    found.files()
    found.together(limits)
    processes = f"processes: {limits.processes} per sandbox"
    found.require(found.limited("processes"), processes, "the limit on processes has no effect")
    found.file_size(limits)
    found.declare(facts.get("NoNewPrivs") == "1", "no new privileges: as gVisor itself reports it")
    found.verdict.enforced.append(f"temporary files: {limits.tmp_bytes // MIB} MiB")
    return found.finish(limits, not_enforced=["protection from bugs in gVisor"])


def judge_container(facts: Mapping[str, str], limits: Limits) -> Verdict:
    """What the facts show of the container or pod that the service itself runs in."""
    found = _Judgement(facts)
    inside = facts.get("processes_of_host") is None and "kernel" in facts
    marker = f" ({facts['marker']})" if "marker" in facts else ""
    found.require(inside, f"inside a container{marker}", "this is no container: the processes of the host are visible")
    found.rights()
    found.kernel()
    found.read_only()
    root = facts.get("root", "unknown").split(",")
    found.require("ro" in root, "root file system: read-only", f"the root file system is mounted {root[0]}")
    found.require(facts.get("python") == "works", "probed with Python, too", "the service's Python cannot be run inside")
    found.require(facts.get("network") == "denied", "network: none", "a socket of a network can be made")
    found.require(
        facts.get("environ_of_service") == "denied",
        "the service's environment: hidden",
        "the service's environment is readable inside",
    )
    signals = all(facts.get(f"signals{to}") == "denied" for to in ("", "_to_all", "_to_guard"))
    found.require(signals, "the service cannot be signalled", "the service can be killed from inside")
    priority = facts.get("priority_of_service") == "denied"
    found.require(priority, "the service cannot be slowed down", "the service can be slowed down from inside")
    # gVisor counts only what `brk` gives, and no allocator depends on that.
    found.declare(found.limited("memory"), private_memory(limits))
    found.file_size(limits)
    return found.finish(
        limits,
        not_enforced=[
            "isolation between the sessions inside: give each tenant a container of its own",
            "files of the container: visible",
            "files of the service: tools run as its user and can write the trajectory log and registered functions",
            "processes of one session: all of them together are bounded",
            "memory of a session's processes together, shared memory, and size of temporary files: as the container limits them",
            "protection from bugs in the host's kernel",
        ],
    )
