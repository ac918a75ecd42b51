"""How much a call may take: time, memory, processes, bytes; and how a result is cut to size."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """The limits of one server. Bytes, seconds and counts; memory counts each process on its own."""

    wall_s: float = 30.0
    start_s: float = 15.0
    memory_bytes: int = 1024 * MIB
    processes: int = 64
    open_files: int = 1024  # what Linux gives; Node.js loads hundreds of modules at once
    file_bytes: int = 64 * MIB
    tmp_bytes: int = 64 * MIB
    output_bytes: int = 1 * MIB

    @property
    def frame_bytes(self) -> int:
        """The largest message that is read at all: room for a result that gets cut, none for a flood."""
        return 4 * self.output_bytes + 64 * 1024


def tightened(own: Limits, ceiling: Limits) -> Limits:
    """A toolset's own limits, none of them above what the operator allows."""
    return replace(own, **{name: min(value, getattr(ceiling, name)) for name, value in vars(own).items()})


def wall_time(limits: Limits, *, asked_s: float | None, remaining_s: float | None) -> float:
    """Seconds this call may take: the least of the toolset's limit, what the caller asks and what its deadline leaves.

    A little of the deadline is kept back, so that the caller hears our reason and not only its own clock.
    """
    bounds = [limits.wall_s]
    if asked_s is not None and asked_s > 0:
        bounds.append(asked_s)
    if remaining_s is not None:
        bounds.append(max(remaining_s - 0.05, 0.001))
    return min(bounds)


def output_cap(limits: Limits, asked: int) -> int:
    """Bytes a result may have; 0 asks for the toolset's limit."""
    return min(asked, limits.output_bytes) if asked > 0 else limits.output_bytes


@dataclass(frozen=True)
class Block:
    """One content block of a result: text, or any other MCP block as JSON bytes."""

    text: str | None = None
    json: bytes = b""

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.json) if self.text is None else len(self.text.encode("utf-8", "replace"))


def cut(blocks: list[Block], structured: bytes, cap: int) -> tuple[list[Block], bytes, bool]:
    """As much of a result as fits, and whether anything was lost: `cap` bytes of blocks, and `cap` of structured JSON.

    Text is cut between characters. A block that is not text, and the structured result, are kept whole or dropped:
    half of a JSON text helps nobody.
    """
    structured_fits = len(structured) <= cap
    kept: list[Block] = []
    left = cap
    for block in blocks:
        if block.size > left:
            if block.text is not None and left > 0:
                kept.append(Block(text=block.text.encode("utf-8", "replace")[:left].decode("utf-8", "ignore")))
            return kept, structured if structured_fits else b"", True
        kept.append(block)
        left -= block.size
    return kept, structured if structured_fits else b"", not structured_fits
