"""Control groups in their two versions, on directories that look like them; the real ones are in test_drivers_isolation.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sandbox.drivers.cgroup import MemoryGroup, below, find_memory_groups


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    own = tmp_path / "unit"
    own.mkdir()
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("cpu\n")
    return own


def test_in_version_1_groups_are_made_below_our_own_memory_group(tmp_path: Path) -> None:
    (tmp_path / "memory" / "own").mkdir(parents=True)
    groups = below("9:pids:/other\n4:cpu,memory:/own\n0::/\n", tmp_path)
    assert groups is not None
    group = groups.create(1000)
    assert group.path.parent == tmp_path / "memory" / "own"
    assert (group.path / "memory.limit_in_bytes").read_text() == "1000"


def test_in_version_2_we_move_into_a_leaf_and_share_memory_out(version_2: Path) -> None:
    groups = below("0::/unit\n", version_2.parent)
    assert groups is not None
    assert (version_2 / "agentflux-service" / "cgroup.procs").read_text() == str(os.getpid())
    assert (version_2 / "cgroup.subtree_control").read_text() == "+memory"
    assert (groups.create(1000).path / "memory.max").read_text() == "1000"


def test_in_version_2_every_probe_finds_the_same_parent(version_2: Path) -> None:
    first = below("0::/unit\n", version_2.parent)
    # Where that has moved us: a group with memory of its own to share out.
    leaf = version_2 / "agentflux-service"
    (leaf / "cgroup.controllers").write_text("memory pids\n")
    (leaf / "cgroup.subtree_control").write_text("\n")
    assert below("0::/unit/agentflux-service\n", version_2.parent) == first
    assert not (leaf / "agentflux-service").exists()


@pytest.mark.parametrize("memberships", ["", "0::/unit\n", "0::/nowhere\n", "4:memory:/nowhere\n"])
def test_without_the_controller_there_are_no_groups(memberships: str, version_2: Path) -> None:
    (version_2 / "cgroup.controllers").write_text("cpu pids\n")
    assert below(memberships, version_2.parent) is None
    assert not (version_2 / "agentflux-service").exists()


def test_groups_of_a_service_that_is_gone_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    groups = below("4:memory:/\n", tmp_path)
    assert groups is not None
    left, ours = tmp_path / "memory" / "agentflux-4194305-ab", tmp_path / "memory" / f"agentflux-{os.getpid()}-ab"
    left.mkdir()
    ours.mkdir()
    groups.clear()
    assert (left.exists(), ours.exists()) == (False, True)


@pytest.fixture
def real_group() -> Iterator[MemoryGroup]:
    groups = find_memory_groups()
    if groups is None:
        pytest.skip("control groups are NOT tested here: none can be made")
    group = groups.create(1 << 24)
    yield group
    assert group.remove()


@pytest.mark.real
def test_a_group_whose_limit_is_refused_is_not_left_behind(real_group: MemoryGroup) -> None:
    groups = find_memory_groups()
    assert groups is not None
    before = set(groups.parent.glob(f"agentflux-{os.getpid()}-*"))
    assert real_group.path in before
    with pytest.raises(OSError, match="Invalid argument"):
        groups.create(-5)
    # Those of sandboxes that have just ended may vanish meanwhile.
    assert set(groups.parent.glob(f"agentflux-{os.getpid()}-*")) <= before


@pytest.mark.real
def test_a_process_is_moved_into_a_group(real_group: MemoryGroup) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        real_group.enclose(process.pid)
        assert (real_group.path / "cgroup.procs").read_text() == f"{process.pid}\n"
        process.communicate()


@pytest.mark.real
def test_a_process_that_is_gone_needs_no_group_and_what_is_no_process_is_refused(real_group: MemoryGroup) -> None:
    real_group.enclose(4194304)
    with pytest.raises(OSError, match="Invalid argument"):
        real_group.enclose(-5)


@pytest.mark.real
@pytest.mark.parametrize("quick", [True, False])
def test_a_command_enters_before_it_becomes_itself(real_group: MemoryGroup, quick: bool) -> None:
    if quick and not real_group.quick:
        pytest.skip("only version 1 has this way")
    command = [*MemoryGroup(real_group.path, quick).enter(), "/bin/cat", "/proc/self/cgroup"]
    assert real_group.path.name in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.real
def test_a_command_that_enters_gets_no_environment_by_that(real_group: MemoryGroup) -> None:
    ended = subprocess.run([*real_group.enter(), "/usr/bin/env"], env={}, capture_output=True, text=True, check=True)
    assert ended.stdout.replace("_=/usr/bin/env\n", "") == ""


def test_a_command_that_cannot_enter_is_not_run(tmp_path: Path) -> None:
    group = MemoryGroup(tmp_path / "none", quick=True)
    ended = subprocess.run([*group.enter(), "/bin/echo", "ran"], capture_output=True, text=True)
    assert (ended.returncode != 0, ended.stdout) == (True, "")


def test_what_makes_the_next_move_quick_moves_nobody() -> None:
    groups = find_memory_groups()
    if groups is None:
        pytest.skip("this machine lets us make no memory groups")
    before = Path("/proc/self/cgroup").read_text()
    groups.hasten()
    assert Path("/proc/self/cgroup").read_text() == before
