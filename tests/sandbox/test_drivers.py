"""The command line of a sandbox, the verdict of its self-probe, and what is said when there is no sandbox."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.sandbox.app import create_driver
from services.sandbox.drivers.bwrap import BwrapDriver, _Machine
from services.sandbox.drivers.command import Data, Layout, Mode, final, identity, inside, mounts
from services.sandbox.drivers.driver import Mount, SandboxSpec
from services.sandbox.drivers.programs import Programs, find_bwrap
from services.sandbox.drivers.proxy import EgressProxy
from services.sandbox.drivers.verdict import NAMESPACES, facts_from, judge, judge_container
from services.sandbox.errors import SandboxUnusable, ToolsetNotReady
from services.sandbox.limits import Limits
from services.sandbox.metrics import SandboxMetrics
from services.sandbox.settings import SandboxSettings

LAYOUT = Layout(
    bwrap=Path("/opt/bwrap"),
    setpriv=Path("/usr/bin/setpriv"),
    prlimit=Path("/usr/bin/prlimit"),
    uid=65532,
    top={"/bin": "usr/bin"},
)
SPEC = SandboxSpec(("node", "x.js"), Path("/srv/files"), Limits(), toolset=Path("/srv/tool"), environment={"KEY": "value"})
ISOLATED = {
    "uid": "65532", "CapEff": "0" * 16, "CapPrm": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "interfaces": "lo",
    "Seccomp": "2", "secret": "kept",
    "together": "limited", "canary": "hidden", "workspace": "writable", "environ": "0", "userns": "denied", "memory": "limited",
    "processes": "limited", "files": "limited", **{f"ns_{kind}": f"{kind}:[2]" for kind in NAMESPACES},
}  # fmt: skip
HOST = {f"ns_{kind}": f"{kind}:[1]" for kind in NAMESPACES}


def pairs(arguments: list[str], option: str) -> list[str]:
    return [arguments[index + 1] for index, argument in enumerate(arguments) if argument == option]


def test_only_the_workspace_is_bound_for_writing() -> None:
    arguments = mounts(SPEC, LAYOUT, Mode.USER, data=Data({"/etc/passwd": 9}, {}), shown=[Path("/opt/node/bin/node")], proxy=None)
    assert pairs(arguments, "--bind") == ["/srv/files"]
    assert {"/usr", "/srv/tool", "/opt/node/bin/node"} == set(pairs(arguments, "--ro-bind"))
    assert pairs(arguments, "--dir") == ["/etc", "/opt", "/opt/node", "/opt/node/bin"]


def test_the_network_is_never_shared_and_every_mode_separates_processes() -> None:
    for mode in Mode:
        arguments = mounts(SPEC, LAYOUT, mode, data=Data({}, {}), shown=[], proxy=None)
        assert {"--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session"} <= set(arguments)
        assert "--share-net" not in arguments


def test_root_drops_to_a_user_before_anything_else_runs() -> None:
    for mode in (Mode.NESTED, Mode.PRIVILEGED):
        command = inside(SPEC.command, LAYOUT, mode, Limits(processes=7), final=9)
        assert command[:3] == ["/usr/bin/setpriv", "--reuid=65532", "--regid=65532"]
        assert "--nproc=7" in command
        assert command[-2:] == ["node", "x.js"]
    assert "--disable-userns" in inside(SPEC.command, LAYOUT, Mode.NESTED, Limits(), final=9)


def test_the_filter_and_the_environment_are_for_the_last_bubblewrap() -> None:
    before = mounts(SPEC, LAYOUT, Mode.NESTED, data=Data({}, {}), shown=[], proxy=None)
    assert not {"--seccomp", "--setenv"} & set(before)
    arguments = final(SPEC, syscalls=9)
    assert pairs(arguments, "--seccomp") == ["9"]
    assert {"KEY", "PATH"} <= set(pairs(arguments, "--setenv"))
    command = inside(SPEC.command, LAYOUT, Mode.NESTED, Limits(), final=7)
    assert command.index("/usr/bin/setpriv") < command.index("/opt/bwrap") < command.index("--args")
    assert pairs(command, "--args") == ["7"]
    assert "--args" not in inside(SPEC.command, LAYOUT, Mode.USER, Limits(), final=7)


def test_tools_run_as_us_or_as_the_owner_of_the_workspace_but_never_as_root() -> None:
    assert identity(euid=1000, workspace_uid=5, sandbox_uid=65532) == 1000
    assert identity(euid=0, workspace_uid=1000, sandbox_uid=65532) == 1000
    assert identity(euid=0, workspace_uid=0, sandbox_uid=65532) == 65532


def test_a_sandbox_that_isolates_has_no_failures() -> None:
    verdict = judge(ISOLATED, HOST, Mode.NESTED, Limits())
    assert verdict.failures == []
    assert "network: none, or the listed destinations through a proxy" in verdict.enforced
    assert "processes: 64 per sandbox" in verdict.enforced
    assert "memory: 1024 MiB per process, of private memory" in verdict.enforced


def test_without_a_control_group_shared_memory_has_no_limit() -> None:
    without = judge({**ISOLATED, "together": "free"}, HOST, Mode.NESTED, Limits())
    assert (
        "memory of all processes of a sandbox together, and shared memory: no control group can be made here"
        in without.not_enforced
    )


@pytest.mark.parametrize(
    ("fact", "value", "says"),
    [
        ("uid", "0", "runs as root"),
        ("CapEff", "00000000a80425fb", "keeps capabilities"),
        ("NoNewPrivs", "0", "setuid programs"),
        ("Seccomp", "0", "filter on system calls"),
        ("secret", "", "a secret cannot be read"),
        ("interfaces", "loeth0", "network interfaces: loeth0"),
        ("canary", "visible", "a file of the host is visible"),
        ("writable", "/usr", "/usr is writable"),
        ("environ", "120", "environment of process 1"),
        ("ns_net", "net:[1]", "shared with the host: net"),
        ("memory", "free", "limit on memory"),
        ("processes", "free", "limit on processes"),
        ("files", "free", "limit on file size"),
    ],
)
def test_each_hole_is_a_failure_of_its_own(fact: str, value: str, says: str) -> None:
    [failure] = judge({**ISOLATED, fact: value}, HOST, Mode.NESTED, Limits()).failures
    assert says in failure


def test_what_could_not_be_seen_is_not_enforced() -> None:
    assert len(judge({}, HOST, Mode.NESTED, Limits()).failures) >= 9
    verdict = judge({**ISOLATED, "userns": "possible"}, HOST, Mode.PRIVILEGED, Limits())
    assert "no further user namespaces" in verdict.not_enforced
    assert "processes: 64 for all sandboxes of uid 65532 together" in verdict.enforced


def test_what_gvisor_does_not_say_or_limit_is_no_hole() -> None:
    # It lacks the line NoNewPrivs of /proc/self/status, which Python fills in, and its RLIMIT_DATA counts `brk` alone.
    facts = {
        "kernel": "Linux version 4.4.0", "uid": "65532", "CapEff": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1",
        "Seccomp": "2", "root": "ro", "python": "works", "network": "denied", "environ_of_service": "denied", "signals": "denied",
        "signals_to_all": "denied", "signals_to_guard": "denied", "priority_of_service": "denied", "memory": "free",
        "files": "limited",
    }  # fmt: skip
    found = judge_container(facts, Limits())
    assert found.failures == []
    assert "memory: 1024 MiB per process, of private memory" in found.not_enforced
    assert "memory: 1024 MiB per process, of private memory" in judge_container({**facts, "memory": "limited"}, Limits()).enforced
    assert judge_container({**facts, "NoNewPrivs": "0"}, Limits()).failures == ["setuid programs could give rights back"]


def test_facts_are_lines_with_an_equals_sign() -> None:
    assert facts_from("a=1\nnoise\nb=x=y\n") == {"a": "1", "b": "x=y"}


def driver(workspace: Path, *, bwrap: Path | None = None, node: Path | None = None) -> BwrapDriver:
    programs = Programs({"node": node} if node else {})
    egress = EgressProxy(SandboxMetrics())
    return BwrapDriver(bwrap=bwrap, programs=programs, workspace=workspace, sandbox_uid=65532, limits=Limits(), egress=egress)


@pytest.mark.anyio
async def test_without_bubblewrap_nothing_is_ever_started(tmp_path: Path) -> None:
    missing = driver(tmp_path, bwrap=tmp_path / "bwrap")
    problem = (await missing.probe()).problem
    assert problem.startswith(f"bubblewrap is not installed (no file {tmp_path}/bwrap): install bubblewrap")
    with pytest.raises(SandboxUnusable, match="bubblewrap is not installed"):
        await missing.start(SPEC)


@pytest.mark.anyio
async def test_nothing_is_started_before_the_probe(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnusable, match="has not been probed"):
        await driver(tmp_path).start(SPEC)


@pytest.mark.anyio
@pytest.mark.parametrize(("script", "says"), [("exit 0", "could not run a command"), ("echo uid=5; echo done=1", "not writable")])
async def test_a_bubblewrap_that_only_pretends_is_found_out(tmp_path: Path, script: str, says: str) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    assert says in (await driver(tmp_path, bwrap=fake).probe()).problem


@pytest.mark.anyio
async def test_a_missing_workspace_is_named(tmp_path: Path) -> None:
    assert "does not exist: create it" in (await driver(tmp_path / "gone").probe()).problem


def test_without_node_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ToolsetNotReady, match=r"Node\.js is not installed.*or set AGENTFLUX_SANDBOX_NODE"):
        driver(tmp_path, node=tmp_path / "node").resolve("node")


MOUNT = Mount(Path("/usr"), "/data")
NAMES = ("bwrap", "runsc", "external")
ALL = frozenset(NAMES)


@pytest.mark.parametrize(
    ("fields", "field", "refused_by"),
    [
        ({}, "", frozenset()),
        ({"workspace": None}, "", frozenset()),
        ({"environment": {"KEY": "value"}}, "", frozenset()),
        ({"environment": {"A=B": "value"}}, "environment", ALL),
        ({"secret_environment": {"TOKEN": "t"}}, "", frozenset()),
        ({"secret_environment": {"TOKEN": "zero\0byte"}}, "secret_environment", ALL),
        ({"secrets": {"token": b"t"}}, "secrets", {"external"}),
        ({"secrets": {"../token": b"t"}}, "secrets", ALL),
        ({"secrets": {".hidden": b"t"}}, "secrets", ALL),
        ({"network": ("api.example.com:443",)}, "network", {"external"}),
        ({"network": ("127.0.0.1:443",)}, "network", ALL),
        ({"network": ("*:443",)}, "network", ALL),
        ({"mounts": (MOUNT,)}, "mounts", {"external"}),
        ({"mounts": (Mount(Path("/usr"), "/usr"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr"), "/workspace/data"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr"), "/data/../etc"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr"), "data"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr"), "/"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr/gone"), "/data"),)}, "mounts", ALL),
        ({"mounts": (Mount(Path("/usr/lib"), "/data"),), "workspace": Path("/usr")}, "mounts", ALL),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_driver_refuses_what_it_cannot_enforce_and_names_the_field(
    name: str, fields: dict[str, Any], field: str, refused_by: frozenset[str], tmp_path: Path
) -> None:
    settings = SandboxSettings(driver=name, workspace_dir=tmp_path)
    said = create_driver(settings).refuses(SandboxSpec(("true",), **{"workspace": tmp_path, "limits": Limits(), **fields}))
    if name in refused_by:
        assert said is not None
        assert f"driver {name} cannot" in said
        assert field in said
    else:
        assert said is None


def test_every_field_of_a_spec_is_in_the_table() -> None:
    always = {"command", "limits", "toolset"}
    tried = {"workspace", "environment", "secrets", "secret_environment", "mounts", "network"}
    assert {field.name for field in dataclasses.fields(SandboxSpec)} == always | tried


def test_another_driver_than_these_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="driver"):
        SandboxSettings(driver="none")


@pytest.mark.real
@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a workspace that tools cannot write")
async def test_a_workspace_of_roots_needs_one_command(tmp_path: Path) -> None:
    problem = (await driver(tmp_path).probe()).problem
    assert problem.endswith(f"chown -R 65532:65532 {tmp_path}")


class Faltering(BwrapDriver):
    """The real driver, whose probes fail where `failing` says so: each mode as often as it is listed."""

    def __init__(self, workspace: Path, *failing: Mode) -> None:
        super().__init__(
            bwrap=None,
            programs=Programs({}),
            workspace=workspace,
            sandbox_uid=65532,
            limits=Limits(),
            egress=EgressProxy(SandboxMetrics()),
        )
        self.failing = list(failing)

    async def _facts(self, machine: _Machine) -> tuple[dict[str, str], str]:
        if machine.mode in self.failing:
            self.failing.remove(machine.mode)
            raise SandboxUnusable("the sandbox's self-probe did not end")
        return await super()._facts(machine)


@pytest.fixture
def open_workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    workspace.chmod(0o777)
    return workspace


STRICTEST = Mode.NESTED if os.geteuid() == 0 else Mode.USER


@pytest.mark.real
@pytest.mark.anyio
async def test_one_failure_of_the_probe_is_no_proof(open_workspace: Path) -> None:
    found = await Faltering(open_workspace, STRICTEST).probe()
    assert found.driver == f"bwrap ({STRICTEST.value})"


@pytest.mark.real
@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user has one mode only")
async def test_a_weaker_mode_is_declared(open_workspace: Path) -> None:
    found = await Faltering(open_workspace, Mode.NESTED, Mode.NESTED).probe()
    assert found.driver == "bwrap (privileged)", found
    assert "a user namespace of its own: the sandbox's self-probe did not end" in found.not_enforced


@pytest.mark.real
@pytest.mark.anyio
async def test_a_later_probe_never_settles_for_less(open_workspace: Path) -> None:
    driver = Faltering(open_workspace)
    assert (await driver.probe()).driver == f"bwrap ({STRICTEST.value})"
    driver.failing = [STRICTEST, STRICTEST]
    assert (await driver.probe()).problem == "the sandbox's self-probe did not end"
    assert (await driver.probe()).driver == f"bwrap ({STRICTEST.value})"


PROBE = """
import asyncio, sys
from pathlib import Path
from services.sandbox.app import create_driver
from services.sandbox.settings import SandboxSettings
driver = create_driver(SandboxSettings(workspace_dir=Path(sys.argv[1])))
print(asyncio.run(driver.probe()).problem)
"""


@pytest.mark.real
def test_without_user_namespaces_a_plain_user_hears_what_to_allow(tmp_path: Path) -> None:
    # Bubblewrap itself makes the place where there are none left.
    without = ["--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns", "--dev-bind", "/", "/"]
    command = [str(find_bwrap(None)), *without, "--", sys.executable, "-c", PROBE, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith("user namespaces are not available to uid 1000")
    assert "user.max_user_namespaces" in said
