"""Loops: which calls this turn has made before, how often they repeated, and what the ladder does about it.

A turn's calls are those after the last answer in text: an answer ends the turn and clears the count.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.gateway.failures import Failing, likeness
from services.gateway.text_history import written_calls, written_result
from services.shared.contracts.calls import Ladder, MadeCall, Standing, Step
from services.shared.contracts.tools import JsonObject, sha256_of

# Calls that take turns without end: two that undo each other, or a round of looking at the same few things.
LONGEST_CYCLE = 4

# Messages at the end of the history in which calls written as text are looked for, which takes time; loops are at the end.
RECENT = 64

OUR_CALL_ID = re.compile("call_[0-9a-f]{24}")


def made_calls(messages: Sequence[JsonObject]) -> list[MadeCall]:
    """The calls of the current turn whose results the history shows, oldest first, in whichever shape it has them."""
    open_calls: dict[str, JsonObject] = {}
    calls: list[MadeCall] = []
    for index, message in enumerate(messages):
        role, text = message["role"], message["content"] or ""
        if role == "assistant":
            # Clients that write calls as text may say something before, in a message of its own.
            as_text = written_calls(text) if index >= len(messages) - RECENT else []
            if not message.get("tool_calls") and not as_text:
                open_calls, calls = {}, []
            open_calls |= {str(call["id"]): call["function"] for call in [*message.get("tool_calls", []), *as_text]}
        elif role == "tool" and (function := open_calls.get(str(message["tool_call_id"]))):
            calls.append(_made(str(message["tool_call_id"]), function, text))
        elif role == "user" and open_calls and (result := written_result(text)) is not None:
            # One text for all calls of the step.
            calls += [_made(call_id, function, result) for call_id, function in open_calls.items()]
            open_calls = {}
    return calls[-1024:]


def since_the_user_spoke(messages: Sequence[JsonObject]) -> Sequence[JsonObject]:
    """The messages after what the user said last; results that clients write as a user's text are none of that."""
    said = (i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "user")
    last = next((i for i in said if written_result(messages[i]["content"]) is None), -1)
    return messages[last + 1 :]


def _made(call_id: str, function: JsonObject, result: str) -> MadeCall:
    return MadeCall(call_id=call_id[:256], tool=function["name"][:128], arguments=function["arguments"], result=result)


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


def conversation_of(messages: Sequence[JsonObject], session: str | None, user: str, caller: str = "") -> str | None:
    """Whose calls are counted together: the client's session, else the first call of the history.

    Both are of one `caller`, the name of an API key: no other key's holder may count, or clear, somebody else's calls.

    An id that we gave out is unique, while two strangers may well open with the same words, or number their calls alike.
    None: nothing tells this conversation from others, and its own history has to do.
    """
    if session:
        return sha256_of(["session", session, user, caller])
    first = next((str(call["id"]) for message in messages for call in message.get("tool_calls", [])), "")
    return sha256_of(["first call", first, user, caller]) if OUR_CALL_ID.fullmatch(first) else None


def new_call_id() -> str:
    """An id for a tool call, unique for all time (96 random bits) and within OpenAI's 40 characters."""
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True)
class LoopGuard:
    """What the ladder demands of this turn; `failing` are the calls that are not made again, by their likeness."""

    repeated: list[Standing]
    withdrawn: set[str]
    blocked: list[Standing]
    failing: Mapping[str, Failing] = field(default_factory=dict)

    def has_failed(self, tool: str) -> bool:
        """Whether there is a call of `tool` that is not made again."""
        return any(call.tool == tool for call in self.failing.values())

    def forbids(self, tool: str, arguments: str) -> bool:
        """Whether this call is one that is not made again."""
        return self.has_failed(tool) and likeness(tool, arguments) in self.failing

    @property
    def note(self) -> JsonObject | None:
        """The warning as a message at the end of the conversation, where it leaves the prompt's prefix alone."""
        lines = [
            f"Note: {standing.tool} was called {standing.repeats} times with the same arguments and gave the same result each "
            "time. Use that result, or do something else."
            for standing in self.repeated
        ]
        lines += [
            f"Note: {call.tool} failed {call.times} times with the same error, and nothing has changed since. Call it with other "
            "arguments, do something else, or tell the user what went wrong."
            for call in self.failing.values()
        ]
        return {"role": "system", "content": "\n".join(lines)} if lines else None


def guard(standings: Sequence[Standing], failing: Mapping[str, Failing] | None = None) -> LoopGuard:
    """Repeated calls, withdrawn tools and blocked calls of these standings, and what is not called again."""
    return LoopGuard(
        repeated=list(standings),
        withdrawn={standing.tool for standing in standings if standing.step in ("withdraw", "block")},
        blocked=[standing for standing in standings if standing.step == "block"],
        failing=failing or {},
    )


def failed_answer(tool: str) -> str:
    """What the assistant says where the only call that it may make has failed alike before."""
    return (
        f"I stopped because {tool} failed with the same error each time, and nothing has changed since. Please tell me what to "
        "do about that error, or rephrase the request."
    )


def blocked_answer(standing: Standing) -> str:
    """What the assistant says instead of calling once more."""
    return (
        f"I stopped because {standing.tool} was called {standing.repeats} times with the same arguments and returned the same "
        "result each time. Please rephrase the request, or tell me what to do with that result."
    )
