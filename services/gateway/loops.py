"""Loops: which calls this turn has made before, how often they repeated, and what the ladder does about it.

A turn's calls are those after the last answer in text: an answer ends the turn and clears the count.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from services.shared.contracts.calls import Ladder, MadeCall, Standing, Step
from services.shared.contracts.tools import JsonObject, sha256_of

# Calls that take turns without end: two that undo each other, or a round of looking at the same few things.
LONGEST_CYCLE = 4

OUR_CALL_ID = re.compile("call_[0-9a-f]{24}")


def made_calls(messages: Sequence[JsonObject]) -> list[MadeCall]:
    """The calls of the current turn whose results the history shows, oldest first."""
    open_calls: dict[str, JsonObject] = {}
    calls: list[MadeCall] = []
    for message in messages:
        if message["role"] == "assistant" and not message.get("tool_calls"):
            open_calls, calls = {}, []
        for call in message.get("tool_calls", []):
            open_calls[str(call["id"])] = call["function"]
        if message["role"] == "tool" and (function := open_calls.get(str(message["tool_call_id"]))):
            calls.append(
                MadeCall(
                    call_id=str(message["tool_call_id"])[:256],
                    tool=function["name"][:128],
                    arguments=function["arguments"],
                    result=message["content"] or "",
                )
            )
    return calls[-1024:]


def own_standings(calls: Sequence[MadeCall], ladder: Ladder) -> list[Standing]:
    """The standings that this request's own history proves, without anybody's memory.

    A call climbs the ladder by its own repeats; calls that go round in a short cycle are warned of before that.
    """
    runs: dict[str, tuple[str, int, str]] = {}
    known: set[tuple[str, str]] = set()
    # The calls at the end that brought nothing new: each was made before, with the same result.
    stale: list[str] = []
    for call in calls:
        digest, repeats, _ = runs.get(call.call_key, ("", 0, ""))
        runs[call.call_key] = (call.result_digest, repeats + 1 if digest == call.result_digest else 1, call.tool)
        pair = (call.call_key, call.result_digest)
        stale = [*stale, call.call_key] if pair in known else []
        known.add(pair)
    circling = set(stale) if len(stale) > LONGEST_CYCLE >= len(set(stale)) and ladder.warn else set()
    return [
        Standing(tool=tool, call_key=key, repeats=repeats, step=step)
        for key, (_, repeats, tool) in runs.items()
        if (step := _at_least_warned(ladder.step(repeats)) if key in circling else ladder.step(repeats)) != "none"
    ]


def _at_least_warned(step: Step) -> Step:
    return "warn" if step == "none" else step


def conversation_of(messages: Sequence[JsonObject], session: str | None, user: str) -> str | None:
    """Whose calls are counted together: the client's session, else the first call of the history.

    An id that we gave out is unique, while two strangers may well open with the same words, or number their calls alike.
    None: nothing tells this conversation from others, and its own history has to do.
    """
    if session:
        return sha256_of(["session", session, user])
    first = next((str(call["id"]) for message in messages for call in message.get("tool_calls", [])), "")
    return sha256_of(["first call", first, user]) if OUR_CALL_ID.fullmatch(first) else None


def new_call_id() -> str:
    """An id for a tool call, unique for all time (96 random bits) and within OpenAI's 40 characters."""
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True)
class LoopGuard:
    """What the ladder demands of this turn."""

    repeated: list[Standing]
    withdrawn: set[str]
    blocked: list[Standing]

    @property
    def note(self) -> JsonObject | None:
        """The warning as a message at the end of the conversation, where it leaves the prompt's prefix alone."""
        lines = [
            f"Note: {standing.tool} was called {standing.repeats} times with the same arguments and gave the same result each "
            "time. Use that result, or do something else."
            for standing in self.repeated
        ]
        return {"role": "system", "content": "\n".join(lines)} if lines else None


def guard(standings: Sequence[Standing]) -> LoopGuard:
    """Repeated calls, withdrawn tools and blocked calls of these standings."""
    return LoopGuard(
        repeated=list(standings),
        withdrawn={standing.tool for standing in standings if standing.step in ("withdraw", "block")},
        blocked=[standing for standing in standings if standing.step == "block"],
    )


def blocked_answer(standing: Standing) -> str:
    """What the assistant says instead of calling once more."""
    return (
        f"I stopped because {standing.tool} was called {standing.repeats} times with the same arguments and returned the same "
        "result each time. Please rephrase the request, or tell me what to do with that result."
    )
