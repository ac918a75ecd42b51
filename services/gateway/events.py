"""What happens in a turn, in the words of the pipeline: a turn ends in a tool call or in an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.selection import Selection
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

Purpose = Literal["answer", "low_margin"]


@dataclass(frozen=True)
class Selected:
    """The vote is over. `toolset` is the registered toolset the tools belong to, if any."""

    selection: Selection
    toolset: str | None


@dataclass(frozen=True)
class CallOpened:
    """A tool will be called; its arguments are being written."""

    call_id: str
    tool: str


@dataclass(frozen=True)
class CallWritten:
    """The arguments of the opened call."""

    generated: GeneratedArguments


@dataclass(frozen=True)
class Answered:
    """The base model's whole answer: the engine's chat completion."""

    body: JsonObject


@dataclass(frozen=True)
class AnswerChunk:
    """A piece of the base model's answer: the engine's chat completion chunk."""

    chunk: JsonObject


@dataclass(frozen=True)
class Stopped:
    """The turn was stopped by the loop ladder, which says so in place of the model."""

    text: str


@dataclass(frozen=True)
class Outside:
    """An upstream was asked; with a `failure` (the code of an error) the local models answered in its place."""

    upstream: str
    purpose: Purpose
    failure: str | None = None

    def told(self) -> JsonObject:
        """As headers and the decision log have it."""
        return {"upstream": self.upstream, "for": self.purpose, "failure": self.failure}


@dataclass(frozen=True)
class Withheld:
    """A call was written and is not made, because it failed alike before; `usage` is what that cost."""

    usage: Usage


Event = Selected | Withheld | CallOpened | CallWritten | Answered | AnswerChunk | Outside | Stopped
