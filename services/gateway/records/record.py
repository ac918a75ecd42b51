"""What is known of a turn while it runs and afterwards: for its headers, for the decision log, and for feedback on it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.gateway.events import CallOpened, CallWritten, Event, Outside, Selected
from services.gateway.records.timing import Timing
from services.gateway.wire.requests import ChatRequest
from services.shared.contracts.tools import JsonObject

# Bytes of one header. Proxies take 4 to 8 KiB for all of them together.
MAX_HEADER = 1536

# Ids that the doors give out: a turn's id behind what names the wire.
_REPLY_ID = re.compile(r"(?:chatcmpl-|resp_|msg_)?([0-9a-f]{32})")


def turn_of(reply_id: str) -> str | None:
    """The id of the turn that a reply's id stands for; None for an id that is not ours."""
    found = _REPLY_ID.fullmatch(reply_id)
    return found[1] if found else None


@dataclass
class Decided:
    """A decision, and the call it led to, if it did and as far as that is."""

    selected: Selected
    call: CallOpened | None = None
    written: CallWritten | None = None


@dataclass
class TurnRecord:
    """One turn. `id` is 32 hex digits, which the ids of its replies end with; `events` are kept only for whoever asks."""

    # None where the engine's own completions are relayed: there is nothing to log or to judge.
    request: ChatRequest | None = field(default=None, repr=False)
    request_id: str | None = None
    # The name of the key that the request brought.
    caller: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    timing: Timing = field(default_factory=Timing)
    decided: list[Decided] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    events: list[Event] | None = None

    def note(self, event: Event) -> None:
        """Takes the next event of the turn."""
        if isinstance(event, Outside):
            self.outside.append(event)
            return
        self.timing.note(event)
        match event:
            case Selected():
                self.decided.append(Decided(event))
            case CallOpened():
                self.decided[-1].call = event
            case CallWritten():
                self.decided[-1].written = event
        if self.events is not None:
            self.events.append(event)

    @property
    def overhead_s(self) -> float | None:
        """Seconds of the decisions in which no engine was waited for, as far as the services tell; None without a decision.

        What the argument service does itself (rendering, checking) counts as the engine's: it tells only the whole.
        """
        if not self.decided:
            return None
        voting = sum(each.selected.selection.timings.get("vote_s", 0.0) for each in self.decided)
        writing = sum(each.written.generated.timings.get("arguments_s", 0.0) for each in self.decided if each.written)
        took = self.timing.seconds
        return max(0.0, took.get("select", 0.0) + took.get("arguments", 0.0) - voting - writing)

    def headers(self) -> dict[str, str]:
        """What a reply tells about its turn, as far as that is; nothing of what did not happen."""
        written = [written_told(each.written) for each in self.decided if each.written]
        told = {
            "server-timing": self.timing.header(),
            "x-agentflux-selection": _bounded([selection_told(each.selected) for each in self.decided]),
            "x-agentflux-arguments": _bounded(written),
            "x-agentflux-upstream": _bounded([each.told() for each in self.outside]),
            "x-agentflux-not-shown": str(self.request.not_shown) if self.request and self.request.not_shown else "",
        }
        return {name: value for name, value in told.items() if value}


def selection_told(event: Selected) -> JsonObject:
    """How a selection came about: the five likeliest labels, margin, strategy, adapter."""
    selection = event.selection
    likeliest = sorted(selection.probabilities.items(), key=lambda item: -item[1])[:5]
    return {
        "tool": selection.tool,
        "toolset": event.toolset,
        "strategy": selection.strategy,
        "margin": round(selection.margin, 4),
        "valid_mass": round(selection.valid_mass, 4),
        "adapter": selection.adapter,
        "release": selection.release,
        "probabilities": {label: round(probability, 4) for label, probability in likeliest},
    }


def written_told(event: CallWritten) -> JsonObject:
    """Who wrote the arguments, and at which try."""
    written = event.generated
    return {"adapter": written.adapter, "release": written.release, "attempts": written.attempts}


def _bounded(told: Sequence[JsonObject]) -> str:
    """The first as JSON, the others in its field `further`; `omitted` counts those for which there is no room.

    Probabilities are left out first. Headers are ASCII; json escapes the rest.
    """
    if not told:
        return ""
    plain = [{key: value for key, value in each.items() if key != "probabilities"} for each in told]
    for first, further in [(told[0], plain[1:]), *((plain[0], plain[1:end]) for end in range(len(told), 0, -1))]:
        omitted = len(told) - 1 - len(further)
        text = json.dumps({**first, **({"further": further} if further else {}), **({"omitted": omitted} if omitted else {})})
        if len(text) <= MAX_HEADER:
            return text
    return json.dumps({"omitted": len(told)})
