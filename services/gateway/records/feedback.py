"""Feedback: which decisions a reply stands for, whether they were right as somebody says, and the accuracy that adds up to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

from services.gateway.metrics import GatewayMetrics
from services.gateway.records.record import TurnRecord, turn_of
from services.gateway.records.stored import Blobs
from services.gateway.toolsets import Catalogue
from services.shared.contracts.errors import InvalidRequest, NotFound, Unavailable
from services.shared.contracts.selection import ANSWER_LABEL
from services.shared.contracts.tools import JsonObject, sha256_of

# Turns that are on their way to the store at the same time; where it does not keep up, the next ones cannot be judged.
MAX_SAVING = 256
_MAX_ARGUMENTS = 64 * 1024


class Judgement(BaseModel):
    """What somebody thinks of a reply, or of the call `call_id` in it; `expected_…` say what would have been right.

    `expected_tool` is the name of a tool, or `summarize` where an answer in text would have been right.
    """

    model_config = ConfigDict(extra="forbid")

    response_id: str = Field(min_length=1, max_length=128)
    call_id: str | None = Field(default=None, max_length=256)
    correct: StrictBool
    expected_tool: str | None = Field(default=None, min_length=1, max_length=128)
    expected_arguments: JsonObject | None = None
    comment: str | None = Field(default=None, max_length=4096)

    @field_validator("expected_arguments")
    @classmethod
    def _bounded(cls, arguments: JsonObject | None) -> JsonObject | None:
        if arguments is not None and len(json.dumps(arguments)) > _MAX_ARGUMENTS:
            raise ValueError(f"is larger than {_MAX_ARGUMENTS} bytes")
        return arguments


@dataclass(frozen=True)
class Made:
    """A decision that can be judged. `tool` is None for an answer in text; so is `toolset` for tools that nobody registered."""

    tool: str | None
    toolset: str | None
    call_id: str | None
    adapter: str | None
    release: int | None


@dataclass
class Judged:
    """A turn's decisions, and the places of those that have been counted."""

    made: list[Made]
    counted: list[int] = field(default_factory=list)


class JudgementLog(Protocol):
    """Whoever keeps what was said."""

    def judged(self, turn_id: str, judgement: Judgement) -> None: ...


class Feedback:
    """Remembers decisions for as long as `blobs` does, and counts each once, at the first judgement of it.

    A later judgement of the same decision replaces the former where judgements are kept (the last line counts), but a counter
    cannot take back what it has counted.
    """

    def __init__(self, blobs: Blobs, metrics: GatewayMetrics, catalogue: Catalogue, log: JudgementLog | None) -> None:
        self._blobs = blobs
        self._metrics = metrics
        self._catalogue = catalogue
        self._log = log
        self._saving: set[asyncio.Task[None]] = set()

    def began(self, turn: TurnRecord) -> None:
        """Nothing can be judged yet."""

    def ended(self, turn: TurnRecord) -> None:
        """A turn ended well and may be judged from now on, by way of any replica; nobody waits for the store."""
        if len(self._saving) >= MAX_SAVING:
            self._metrics.feedback_lost.inc()
            return
        task = asyncio.create_task(self._save(_key(turn.caller, turn.id), Judged(decisions_of(turn))))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def judge(self, caller: str, judgement: Judgement) -> JsonObject:
        """Counts and keeps a judgement; returns what it was taken to be about.

        Raises:
            NotFound: the reply is unknown, too old, or another caller's.
            InvalidRequest: naming the field that does not fit the reply.
            Unavailable: the store cannot be asked.
        """
        turn_id = turn_of(judgement.response_id)
        judged = await self._load(_key(caller, turn_id)) if turn_id else None
        if turn_id is None or judged is None:
            raise NotFound(
                f"no reply {judgement.response_id!r} to this API key is known; feedback is possible on the `id` of a completed "
                "reply for as long as the setting feedback_ttl_s says",
                param="response_id",
            )
        place = _place(judged.made, judgement)
        made = judged.made[place]
        self._check_expected(made, judgement)
        counted = place not in judged.counted
        if counted:
            judged.counted.append(place)
            await self._blobs.save(_key(caller, turn_id), json.dumps(judged, default=vars).encode())
            self._metrics.judged(made.toolset, made.tool, correct=judgement.correct)
        if self._log:
            self._log.judged(turn_id, judgement.model_copy(update={"call_id": made.call_id}))
        told = {"object": "feedback", "response_id": judgement.response_id, "correct": judgement.correct}
        return {**told, **asdict(made), "counted": counted, "stored": self._log is not None}

    async def aclose(self) -> None:
        """Waits for what is on its way to the store, within the store's own deadline, and closes it."""
        await asyncio.gather(*self._saving)
        await self._blobs.aclose()

    async def _save(self, key: str, judged: Judged) -> None:
        try:
            await self._blobs.save(key, json.dumps(judged, default=vars).encode())
        except Unavailable:
            self._metrics.feedback_lost.inc()

    async def _load(self, key: str) -> Judged | None:
        [value] = await self._blobs.load([key])
        if value is None:
            return None
        found = json.loads(value)
        return Judged([Made(**each) for each in found["made"]], found["counted"])

    def _check_expected(self, made: Made, judgement: Judgement) -> None:
        if judgement.correct and (judgement.expected_tool or judgement.expected_arguments is not None):
            name = "expected_tool" if judgement.expected_tool else "expected_arguments"
            raise InvalidRequest(f"{name} says what would have been right; it goes with `correct`: false", param=name)
        toolset = self._catalogue.toolsets.get(made.toolset or "")
        if judgement.expected_tool is None or toolset is None:
            return
        names = [*(tool.name for tool in toolset.tools), ANSWER_LABEL]
        if judgement.expected_tool not in names:
            raise InvalidRequest(
                f"expected_tool is {judgement.expected_tool!r}; toolset {toolset.name} has {', '.join(names)}",
                param="expected_tool",
            )


def decisions_of(turn: TurnRecord) -> list[Made]:
    """What can be judged of a turn: each call, or the answer where there was none."""
    made = []
    for each in turn.decided:
        selection = each.selected.selection
        call_id = each.call.call_id if each.call else None
        made.append(Made(selection.tool, each.selected.toolset, call_id, selection.adapter, selection.release))
    # That a turn with calls is over is no decision anybody asks about.
    return [each for each in made if each.call_id] or made[:1] or [Made(None, None, None, None, None)]


def _place(made: Sequence[Made], judgement: Judgement) -> int:
    ids = [each.call_id for each in made]
    if judgement.call_id is None:
        if len(made) == 1:
            return 0
        raise InvalidRequest(f"call_id is missing: the reply has several calls, {', '.join(map(str, ids))}", param="call_id")
    if judgement.call_id not in ids:
        raise InvalidRequest(
            f"call_id is {judgement.call_id!r}; the calls of this reply are {[each for each in ids if each]}", param="call_id"
        )
    return ids.index(judgement.call_id)


def _key(caller: str | None, turn_id: str) -> str:
    """Hashed with the caller: ids are told to proxies and logs, and who reads one there may not judge with a key of their own."""
    return f"agentflux:turns:v2:{sha256_of([caller, turn_id])}"
