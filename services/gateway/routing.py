"""Where a request goes: straight to the base model, or through selection and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.wire.requests import ChatRequest


@dataclass(frozen=True)
class PassThrough:
    """The base model answers; there is nothing to select."""


@dataclass(frozen=True)
class ToolRoute:
    """One of `candidates` is called, or text is answered where `may_answer` says so."""

    candidates: list[str]
    may_answer: bool


Route = PassThrough | ToolRoute


def route(request: ChatRequest) -> Route:
    """The route of a request; its tools and its `tool_choice` decide."""
    if not request.tools or not request.choice.may_call:
        return PassThrough()
    names = request.choice.names
    return ToolRoute(
        candidates=[tool.name for tool in request.tools if names is None or tool.name in names],
        may_answer=request.choice.may_answer,
    )
