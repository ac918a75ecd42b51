"""The decision log: which finished turns are kept for the trainer, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from services.gateway.events import Stopped
from services.gateway.records.feedback import Judgement
from services.gateway.records.record import Decided, TurnRecord
from services.gateway.toolsets import Catalogue
from services.gateway.wire.replies import Reply
from services.shared.contracts.redaction import Redactor
from services.shared.contracts.tools import JsonObject, sha256_of, tools_digest


class Lines(Protocol):
    """Whoever appends lines of JSON, later and elsewhere."""

    @property
    def trouble(self) -> str | None:
        """Why the last line was lost, if the disk did not take it."""

    def put(self, row: Callable[[], Any]) -> None:
        """Takes a line; never waits, never raises."""

    async def aclose(self) -> None:
        """Writes what it has taken."""


class DecisionLog:
    """Keeps a `sample` (0..1) of the conversations, turn by turn, and all feedback, without the secrets in them.

    Conversations that begin alike are sampled alike, on every replica. Not kept: turns that failed, were cancelled or were
    stopped by the loop ladder, which are nobody's decision, and turns without tools, in which there was nothing to decide.
    """

    def __init__(self, turns: Lines, feedback: Lines, catalogue: Catalogue, *, sample: float) -> None:
        self._turns = turns
        self._feedback = feedback
        self._catalogue = catalogue
        self._sample = sample

    def began(self, turn: TurnRecord) -> None:
        """A turn begins; its events are kept if it will be logged."""
        request = turn.request
        if request and request.tools and (self._sample >= 1 or _share_of(request.messages) < self._sample):
            turn.events = []

    def ended(self, turn: TurnRecord) -> None:
        """A turn ended well."""
        events = turn.events or []
        if events and not any(isinstance(event, Stopped) for event in events):
            now = datetime.now(UTC)
            self._turns.put(lambda: row_of(turn, now, self._catalogue))

    def judged(self, turn_id: str, judgement: Judgement) -> None:
        """Somebody said what they think of a turn."""
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "response_id": turn_id}
        self._feedback.put(lambda: {**told, **Redactor().redacted(judgement.model_dump(exclude={"response_id"}))})

    async def ready(self) -> str | None:
        """None while rows are kept, else why they are not."""
        return self._turns.trouble or self._feedback.trouble

    async def aclose(self) -> None:
        """Writes what waits to be written."""
        await self._turns.aclose()
        await self._feedback.aclose()


def _share_of(messages: Sequence[JsonObject]) -> float:
    """0 to 1, by the beginning of a conversation, which all of its turns share."""
    first = next((number for number, message in enumerate(messages) if message["role"] == "user"), 0)
    return int(sha256_of(messages[: first + 1])[:8], 16) / 0x1_0000_0000


def row_of(turn: TurnRecord, now: datetime, catalogue: Catalogue) -> JsonObject:
    """One line of the log, as trainer/decisions.py reads it, without the secrets that are found."""
    request = turn.request
    assert request is not None
    reply = Reply(request.model, turn.id)
    for event in turn.events or []:
        reply.add(event)
    body = reply.body()
    toolset = catalogue.toolset_of(request.tools)
    tools = [tool.openai() for tool in request.tools]
    releases = [each.selected.selection.release for each in turn.decided]
    return {
        "time": now.isoformat(timespec="milliseconds"),
        "response_id": turn.id,
        "request_id": turn.request_id,
        "caller": turn.caller,
        "toolset": toolset.name if toolset else "",
        "release": releases[0] if releases else None,
        "tools_digest": tools_digest(request.tools),
        **_redacted(tools, request.messages, body["choices"], [_decision(each) for each in turn.decided]),
        "upstream": [each.told() for each in turn.outside],
        "usage": body["usage"],
        "timings": {part: round(seconds, 4) for part, seconds in turn.timing.seconds.items()},
        "feedback": None,
    }


def _redacted(
    tools: list[JsonObject], messages: list[JsonObject], choices: list[JsonObject], decisions: list[JsonObject]
) -> JsonObject:
    """The texts in the order of the conversation, tools first: stand-ins are numbered as they are met, and the next turn's line
    has to give the same ones, or nobody sees that the two are one conversation."""
    redacted = Redactor().redacted
    shown = redacted(tools)
    said = redacted(messages)
    return {"request": {"messages": said, "tools": shown}, "response": {"choices": redacted(choices)}, "decisions": decisions}


def _decision(each: Decided) -> JsonObject:
    """A decision; the call's arguments stand in the response."""
    selection = each.selected.selection
    told: JsonObject = selection.model_dump(include={"tool", "margin", "probabilities", "strategy", "adapter", "valid_mass"})
    if each.call:
        told["call_id"] = each.call.call_id
    if each.written:
        written = each.written.generated
        told["arguments"] = {"adapter": written.adapter, "attempts": written.attempts, "finish_reason": written.finish_reason}
    return told
