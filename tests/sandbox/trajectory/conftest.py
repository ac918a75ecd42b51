"""A log in a directory of its own, and calls to write into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.sandbox.drivers.driver import Capabilities
from services.sandbox.limits import Block
from services.sandbox.toolsets import Toolset
from services.sandbox.trajectory.asking import Asking, CallLike
from services.sandbox.trajectory.log import TrajectoryLog
from services.sandbox.trajectory.records import Asked
from services.sandbox.trajectory.store import TrajectoryFiles

MIB = 1 << 20
HERE = Capabilities("bwrap (nested)", enforced=("no network",), not_enforced=("total memory",))


@dataclass(frozen=True)
class Said:
    """A result by hand."""

    text: str = "hello"
    is_error: bool = False
    structured: bytes = b""
    truncated: bool = False
    start_s: float = 0.001
    run_s: float = 0.002
    cold_start: bool = False
    blocks: list[Block] = field(default_factory=lambda: [Block(text="hello")])

    @property
    def output_bytes(self) -> int:
        return sum(block.size for block in self.blocks)


@dataclass(frozen=True)
class Called:
    """A call by hand."""

    toolset: str = "files"
    tool: str = "read"
    arguments: bytes = b'{"path": "/a"}'
    session_id: str = "session-1"
    call_id: str = "call-1"
    tenant: str = "acme"


class Knowing(Asking):
    """Knows a tool and its secrets without a toolset."""

    def __init__(self, secrets: tuple[bytes, ...] = (), tool_digest: str = "") -> None:
        super().__init__()
        self._known = secrets
        self._digest = tool_digest

    def asked(self, call: CallLike, toolset: Toolset | None, capabilities: Capabilities) -> Asked:
        asked = super().asked(call, toolset, capabilities)
        return Asked(**{**vars(asked), "known_keys": frozenset({"path"}), "secrets": self._known, "tool_digest": self._digest})


MakeLog = Callable[..., TrajectoryLog]


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[MakeLog]:
    """`make_log(with_text=True)`: an open log in `tmp_path / "log"`, or in `directory`."""
    made: list[TrajectoryLog] = []

    def make(
        directory: Path = tmp_path / "log",
        *,
        file_bytes: int = MIB,
        max_bytes: int = 64 * MIB,
        asking: Asking | None = None,
        **rest: object,
    ) -> TrajectoryLog:
        files = TrajectoryFiles(directory, max_file_bytes=file_bytes, max_bytes=max_bytes, max_age_s=3600)
        log = TrajectoryLog(files, asking=asking or Knowing(), **rest)  # type: ignore[arg-type]
        made.append(log)
        log.open()
        return log

    yield make
    for log in made:
        log.close()


def run(log: TrajectoryLog, call: Called = Called(), said: Said = Said()) -> None:
    """One call that has a result."""
    with log.recorded(call, None, HERE) as record:
        record.finished(said)
