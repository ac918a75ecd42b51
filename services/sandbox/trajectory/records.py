"""What a record of a call says. By default the shape of its arguments and their hash, never their text; secrets never."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

import orjson

from services.sandbox.frames import strict_json
from services.sandbox.limits import Block
from services.sandbox.trajectory import chain
from services.sandbox.trajectory.redacted import MAX_TEXT, Scrubber, cleaned, kept_text, shape
from services.shared.contracts.tools import JsonObject, Tool, sha256_of

# Names that callers choose freely are cut to this many characters: no session id that the service takes is longer.
MAX_NAME = 256
# What each record of a call has of it (`identity`).
IDENTITY = ("call_id", "trajectory_id", "tenant", "toolset", "tool", "driver", "enforced", "not_enforced")
# More than any log has; what is larger leaves no room to count on.
_MAX_NUMBER = 1 << 53


@dataclass(frozen=True)
class Asked:
    """A call as it arrived, and what it would run under. `known_keys` are the property names of the tool's schema."""

    toolset: str
    tool: str
    arguments: bytes
    call_id: str
    trajectory_id: str
    tenant: str = ""
    trace_id: str = ""
    toolset_digest: str = ""
    tool_digest: str = ""
    known_keys: frozenset[str] = frozenset()
    driver: str = ""
    enforced: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()
    secrets: tuple[bytes, ...] = ()


class Finished(Protocol):
    """A result as it goes to the caller. Seconds and bytes."""

    @property
    def is_error(self) -> bool: ...
    @property
    def blocks(self) -> list[Block]: ...
    @property
    def structured(self) -> bytes: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def start_s(self) -> float: ...
    @property
    def run_s(self) -> float: ...
    @property
    def cold_start(self) -> bool: ...
    @property
    def output_bytes(self) -> int: ...


@dataclass(frozen=True)
class Failed:
    """Why there is no result: the gRPC code and the reason that the caller sees, and the sentence for people."""

    code: str
    reason: str
    message: str


def start_row(asked: Asked, *, with_text: bool) -> JsonObject:
    """What is written before anything runs."""
    scrub = Scrubber(asked.secrets)
    return {
        "time": now(),
        "event": "start",
        **identity(asked, scrub),
        "toolset_digest": asked.toolset_digest,
        "tool_digest": asked.tool_digest,
        "arguments": _arguments(asked, scrub, with_text=with_text),
        "trace_id": asked.trace_id,
    }


def end_row(asked: Asked, started: int, said: Finished | Failed, *, total_s: float, with_text: bool) -> JsonObject:
    """The one record of how the call that began as record `started` ended."""
    scrub = Scrubber(asked.secrets)
    usage: JsonObject = {"total_ms": _ms(total_s)}
    if isinstance(said, Failed):
        outcome, code, reason = "cancelled" if said.code == "CANCELLED" else "failed", said.code, said.reason
    else:
        outcome, code, reason = "tool_error" if said.is_error else "ok", "OK", ""
        usage |= {"start_ms": _ms(said.start_s), "run_ms": _ms(said.run_s), "output_bytes": said.output_bytes}
        usage |= {"cold_start": said.cold_start, "truncated": said.truncated}
    row = {
        **_end(started, identity(asked, scrub), outcome, code, reason),
        "usage": usage,
    }
    if with_text:
        row["result"] = _result(said, scrub)
    return row


def aborted_row(started: int, call: JsonObject) -> JsonObject:
    """The end of a call whose runner died; `call` is what `identity` says of it."""
    return _end(started, call, "aborted", "UNKNOWN", "RUNNER_DIED")


def identity(asked: Asked, scrub: Scrubber) -> JsonObject:
    """Which call it is, and what it runs under: all that each of its records has."""
    names = {
        "call_id": asked.call_id,
        "trajectory_id": asked.trajectory_id,
        "tenant": asked.tenant,
        "toolset": asked.toolset,
        "tool": asked.tool,
    }
    under: JsonObject = {"driver": asked.driver, "enforced": list(asked.enforced), "not_enforced": list(asked.not_enforced)}
    return {key: scrub(cleaned(value))[:MAX_NAME] for key, value in names.items()} | under


def record_of(line: bytes) -> JsonObject:
    """The record of a line, newline included.

    Raises:
        ValueError: the line is not as it was written, or it was not written by this service: anybody can compute a hash.
    """
    row = chain.unsealed(line)
    match row:
        case {"event": "open", "in_flight": list(calls), "torn": list(ends)}:
            fits = all(_is_call(call, "started") for call in calls) and all(_is_torn(end) for end in ends)
        case {"event": "start"}:
            fits = _is_call(row, "seq")
        case {"event": "end"}:
            fits = _is_call(row, "started")
        case _:
            fits = False
    if not (fits and _is_number(row.get("seq")) and isinstance(row.get("prev"), str)):
        raise ValueError("it is no record")
    return row


def now() -> str:
    """The time of a record: UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def tool_digest(tool: Tool) -> str:
    """Commits to a tool as models see it: name, description, parameters."""
    return sha256_of(tool.openai())


def _arguments(asked: Asked, scrub: Scrubber, *, with_text: bool) -> JsonObject:
    told: JsonObject = {"sha256": sha256(asked.arguments).hexdigest(), "bytes": len(asked.arguments)}
    # Larger ones have a hash and a size: to parse them would take longer than most calls.
    if len(asked.arguments) <= MAX_TEXT:
        try:
            told["shape"] = shape(strict_json(asked.arguments or b"{}"), asked.known_keys)
        except ValueError:
            told["shape"] = "not JSON"
    if with_text:
        told |= kept_text(asked.arguments.decode("utf-8", "replace"), scrub)
    return told


def _result(said: Finished | Failed, scrub: Scrubber) -> JsonObject:
    if isinstance(said, Failed):
        return {"error": kept_text(said.message, scrub)}
    blocks: list[JsonObject] = []
    left = MAX_TEXT
    for block in said.blocks:
        if block.text is None:
            blocks.append(_medium(block.json))
        else:
            blocks.append({"type": "text", **kept_text(block.text, scrub, left)})
            left = max(left - len(block.text), 0)
    told: JsonObject = {"content": blocks}
    if said.structured:
        told["structured"] = kept_text(said.structured.decode("utf-8", "replace"), scrub)
    return told


def _medium(block: bytes) -> JsonObject:
    """A block that is no text: what kind, how large, which bytes."""
    kind = str(orjson.loads(block).get("type", ""))[:MAX_NAME]
    return {"type": kind, "bytes": len(block), "sha256": sha256(block).hexdigest()}


def _end(started: int, call: JsonObject, outcome: str, code: str, reason: str) -> JsonObject:
    return {"time": now(), "event": "end", "started": started, **call, "outcome": outcome, "code": code, "reason": reason}


def _is_call(row: object, number: str) -> bool:
    if not isinstance(row, dict) or not _is_number(row.get(number)):
        return False
    *names, enforced, not_enforced = (row.get(key) for key in IDENTITY)
    if not (isinstance(enforced, list) and isinstance(not_enforced, list)):
        return False
    return all(isinstance(text, str) for text in (*names, *enforced, *not_enforced))


def _is_torn(end: object) -> bool:
    return isinstance(end, dict) and isinstance(end.get("file"), str) and {"bytes", "sha256"} <= end.keys()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 < value < _MAX_NUMBER


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
