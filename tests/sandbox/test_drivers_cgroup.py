"""Control groups in their two versions, on directories that look like them; the real ones are in test_drivers_isolation.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.sandbox.drivers.cgroup import below, enter, find_memory_groups, remove


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
    assert group.parent == tmp_path / "memory" / "own"
    assert (group / "memory.limit_in_bytes").read_text() == "1000"


def test_in_version_2_we_move_into_a_leaf_and_share_memory_out(version_2: Path) -> None:
    groups = below("0::/unit\n", version_2.parent)
    assert groups is not None
    assert (version_2 / "agentflux-service" / "cgroup.procs").read_text() == str(os.getpid())
    assert (version_2 / "cgroup.subtree_control").read_text() == "+memory"
    assert (groups.create(1000) / "memory.max").read_text() == "1000"


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


def test_a_process_can_be_put_into_a_group_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    groups = below("4:memory:/\n", tmp_path)
    assert groups is not None
    group = groups.enclose(4711, 1000)
    assert (group / "cgroup.procs").read_text() == "4711"
    assert (group / "memory.limit_in_bytes").read_text() == "1000"


@pytest.mark.real
def test_a_process_that_is_gone_needs_no_group_and_what_is_no_process_leaves_none() -> None:
    groups = find_memory_groups()
    if groups is None:
        pytest.skip("control groups are NOT tested here: none can be made")
    assert remove(groups.enclose(4194304, 1 << 20))
    before = set(groups.parent.glob(f"agentflux-{os.getpid()}-*"))
    with pytest.raises(OSError, match="Invalid argument"):
        groups.enclose(-5, 1 << 20)
    assert set(groups.parent.glob(f"agentflux-{os.getpid()}-*")) <= before


def test_what_makes_the_next_move_quick_moves_nobody() -> None:
    groups = find_memory_groups()
    if groups is None:
        pytest.skip("this machine lets us make no memory groups")
    before = Path("/proc/self/cgroup").read_text()
    groups.hasten()
    assert Path("/proc/self/cgroup").read_text() == before


def test_a_command_enters_before_it_becomes_itself() -> None:
    assert enter(Path("/sys/x"))[:2] == ["/bin/sh", "-c"]
    assert enter(Path("/sys/x"))[-1] == "/sys/x/cgroup.procs"
