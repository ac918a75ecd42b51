"""Logged decisions, one line per request that was answered, and the conversations that they are parts of.

{"time": …, "response_id": …, "request": {"messages": […], "tools": […]}, "response": {"choices": [{"message": {…}}]},
 "toolset": "filesystem", "feedback": {"correct": true} or null}

Feedback that came later has lines of its own: {"response_id": …, "call_id": … or null, "correct": true}; the last one counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from services.shared.contracts.tools import JsonObject, sha256_of
from trainer.trajectories import Trajectory


class Request(BaseModel):
    """What the client sent."""

    messages: list[JsonObject] = Field(min_length=1)
    tools: list[JsonObject] = Field(min_length=1)


class Choice(BaseModel):
    """One answer."""

    message: JsonObject


class Response(BaseModel):
    """What it got; the first choice counts."""

    choices: list[Choice] = Field(min_length=1)


class Feedback(BaseModel):
    """What somebody thought of it."""

    correct: bool


class Judgement(BaseModel):
    """One line of feedback: of a call, where the response has several."""

    response_id: str
    call_id: str | None = None
    correct: bool


class Record(BaseModel):
    """One line of the log."""

    response_id: str = ""
    request: Request
    response: Response
    toolset: str = ""
    feedback: Feedback | None = None


@dataclass
class Conversation:
    """A conversation up to its last answer."""

    messages: list[JsonObject]
    tools: list[JsonObject]


@dataclass
class Imported:
    """Trajectories from a log, and what became of the rest: records in a conversation that goes on in another one, records that
    were judged wrong or that came after such a one, conversations that end in a call, and secrets by kind."""

    rows: list[Trajectory] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    continued: int = 0
    wrong: int = 0
    unfinished: int = 0
    redacted: Counter[str] = field(default_factory=Counter)

    def report(self) -> JsonObject:
        """The counts."""
        counts = {
            "continued": self.continued,
            "wrong": self.wrong,
            "unfinished": self.unfinished,
            "redacted": dict(self.redacted),
        }
        return {"trajectories": len(self.rows), "unreadable": len(self.problems), **counts}


def conversations(records: Sequence[Record], counts: Imported) -> Iterator[Conversation]:
    """The longest form of each conversation, without what was judged wrong and whatever followed from that.

    The order of the records does not matter. One that was logged twice counts once.
    """
    wholes = [[*record.request.messages, {"role": "assistant", **record.response.choices[0].message}] for record in records]
    prefixes = [_prefixes(record, whole) for record, whole in zip(records, wholes, strict=True)]
    wrong = {keys[-1] for record, keys in zip(records, prefixes, strict=True) if record.feedback and not record.feedback.correct}
    kept = {keys[-1]: number for number, keys in enumerate(prefixes) if wrong.isdisjoint(keys)}
    longer = {key for number in kept.values() for key in prefixes[number][:-1]}
    counts.wrong += sum(not wrong.isdisjoint(keys) for keys in prefixes)
    for key, number in kept.items():
        if key in longer:
            counts.continued += 1
            continue
        messages = wholes[number]
        while messages and not _is_answer(messages[-1]):
            messages = messages[:-1]
        if messages:
            yield Conversation(messages, records[number].request.tools)
        counts.unfinished += not messages


def judged(records: Sequence[Record], judgements: Sequence[Judgement]) -> list[Record]:
    """The records with the feedback that came later, in its order; one wrong call makes a response wrong."""
    latest = {(each.response_id, each.call_id): each.correct for each in judgements}
    verdicts: dict[str, bool] = {}
    for (response_id, _), correct in latest.items():
        verdicts[response_id] = verdicts.get(response_id, True) and correct
    return [
        record.model_copy(update={"feedback": Feedback(correct=verdicts[record.response_id])})
        if record.response_id in verdicts
        else record
        for record in records
    ]


def _prefixes(record: Record, whole: Sequence[JsonObject]) -> list[str]:
    """For each length of the conversation a hash of it so far, toolset and tools included."""
    keys = [sha256_of([record.toolset, record.request.tools])]
    for message in whole:
        calls = [call.get("function") for call in message.get("tool_calls") or []]
        # Clients send an answer back with "" for no content, and with fields of their own.
        keys.append(sha256_of([keys[-1], message.get("role"), message.get("content") or "", calls]))
    return keys[1:]


def _is_answer(message: JsonObject) -> bool:
    return message.get("role") == "assistant" and bool(message.get("content")) and not message.get("tool_calls")
