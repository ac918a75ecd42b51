"""What a Responses API request asks for: its input as items, and its turn as the chat request that the pipeline understands.

Source: OpenAI's API reference, "Create a model response". Stored history comes in from outside; see stored.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.gateway.records.stored import History
from services.gateway.wire.requests import ChatBody, ChatRequest, UnknownTools, understood
from services.gateway.wire.responses_items import input_items, messages_of
from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.tools import JsonObject, Tool

LOGPROBS = "message.output_text.logprobs"

# Fields of an OpenAI Responses request that have no effect here. All others that no `ResponsesBody` has are unknown.
WITHOUT_EFFECT = {
    "access_programs", "background_options", "context_management", "image", "moderation", "personality", "prompt_cache_options",
    "prompt_cache_retention", "stream_options",
}  # fmt: skip


class ResponsesBody(BaseModel):
    """A Responses API request as it arrives; unknown fields are accepted."""

    model_config = ConfigDict(extra="allow", strict=False)

    model: str = Field(min_length=1)
    input: Any = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    text: JsonObject | None = None
    reasoning: JsonObject | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None


class InputTokensBody(ResponsesBody):
    """A request to count tokens ("Get input token counts"), in which nothing is written; without a model it is the base model."""

    model: str = ""

    @field_validator("model", mode="before")
    @classmethod
    def _null_is_none(cls, model: Any) -> Any:
        return "" if model is None else model


@dataclass(frozen=True)
class ResponsesRequest:
    """A Responses API request, understood.

    `input` are this request's own items; `echo` is what the response object repeats of the
    request; `chat` is the turn, with the history in it.
    """

    chat: ChatRequest
    input: list[JsonObject]
    history: History
    store: bool
    echo: JsonObject = field(repr=False)


def understood_response(
    body: ResponsesBody,
    *,
    history: History,
    referenced: Mapping[str, JsonObject],
    default_tools: Sequence[Tool],
    session: str | None,
    strict_fields: bool = False,
    unknown_tools: UnknownTools = "ignore",
) -> ResponsesRequest:
    """The request with input, tools and formats checked.

    `history` is what `previous_response_id` stands for: the items of the responses before, not their instructions and tools.
    `referenced` are the stored items that `item_reference` items may mean, by id. `strict_fields` and `unknown_tools` are as
    for chat.

    Raises:
        InvalidRequest: naming the field, what it holds, and what is possible.
        NotFound: an `item_reference` means nothing that is stored.
    """
    _check_fields(body, strict=strict_fields)
    items = input_items(body.input, history=history, referenced=referenced)
    chat_body = _chat_body(body, [*history.items, *items])
    try:
        # A message of the assistant at the end is history on this wire; what follows it is a new one.
        chat = understood(chat_body, default_tools=default_tools, session=session, unknown_tools=unknown_tools, continuing=False)
    except InvalidRequest as error:
        raise type(error)(_flat(error.message), param=_flat(error.param or "") or None) from error
    strict = {entry.get("name"): entry.get("strict") for entry in body.tools or [] if entry.get("type") == "function"}
    tools = [{"type": "function", **tool.model_dump(), "strict": strict.get(tool.name)} for tool in chat.tools]
    return ResponsesRequest(
        chat=chat,
        input=items,
        history=history,
        store=body.store is not False,
        echo={"tools": tools, **_echo(body)},
    )


def _check_fields(body: ResponsesBody, *, strict: bool) -> None:
    strangers = sorted(set(body.model_extra or ()) - WITHOUT_EFFECT)
    if strict and strangers:
        raise InvalidRequest(f"there is no field {strangers[0]!r:.100} in a Responses API request", param=strangers[0])
    instead = {
        "conversation": "send `previous_response_id`, or the whole history as `input`",
        "background": "send `stream: true` for turns that take long",
        "prompt": "send its text as `instructions`",
    }
    for name, advice in instead.items():
        if getattr(body, name):
            raise InvalidRequest(f"`{name}` is not supported here; {advice}", param=name)


def _chat_body(body: ResponsesBody, items: list[JsonObject]) -> ChatBody:
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    logprobs = {"logprobs": True, "top_logprobs": body.top_logprobs or 0} if LOGPROBS in (body.include or []) else {}
    return ChatBody.model_validate(
        {
            "model": body.model,
            "messages": [*system, *messages_of(items)],
            "tools": [_nested(entry) for entry in body.tools or []],
            "tool_choice": _tool_choice(body.tool_choice),
            "parallel_tool_calls": body.parallel_tool_calls,
            "stream": body.stream,
            "max_completion_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "response_format": _response_format(body.text or {}),
            "user": body.user or body.safety_identifier,
            "prompt_cache_key": body.prompt_cache_key,
            **logprobs,
        }
    )


def _nested(entry: Any) -> Any:
    """A function tool as chat has it; others as they are, for the same policy."""
    if not isinstance(entry, dict) or entry.get("type") != "function":
        return entry
    return {"type": "function", "function": {key: value for key, value in entry.items() if key != "type"}}


def _flat(complaint: str) -> str:
    """A complaint about a nested tool, about the flat one that was sent."""
    return re.sub(r"\b(tools\.\d+)\.function", r"\1", complaint)


def _tool_choice(choice: Any) -> str | JsonObject | None:
    """Chat understands the flat forms as well; of `allowed_tools`, those that this deployment may call remain."""
    if choice is not None and not isinstance(choice, str | dict):
        raise InvalidRequest(f"tool_choice is {choice!r:.100}; it is a text or an object", param="tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        kept = [tool for tool in choice["tools"] if not isinstance(tool, dict) or tool.get("type", "function") == "function"]
        return {**choice, "tools": kept}
    return choice


def _response_format(text: JsonObject) -> JsonObject | None:
    """`text.format` as chat's `response_format`."""
    wanted = text.get("format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise InvalidRequest(
            f"text.format is {wanted!r:.100}; its type is 'text', 'json_object' or 'json_schema'", param="text.format"
        )
    if not isinstance(wanted.get("schema"), dict) or not isinstance(wanted.get("name"), str):
        raise InvalidRequest("text.format of type 'json_schema' needs a `name` and an object `schema`", param="text.format")
    schema = {key: wanted[key] for key in ("name", "description", "schema", "strict") if wanted.get(key) is not None}
    return {"type": "json_schema", "json_schema": schema}


def _echo(body: ResponsesBody) -> JsonObject:
    """What the response object repeats, with OpenAI's defaults."""
    text = body.text or {}
    return {
        "model": body.model,
        "instructions": body.instructions,
        "previous_response_id": body.previous_response_id,
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": bool(body.parallel_tool_calls),
        "max_tool_calls": body.max_tool_calls,
        "max_output_tokens": body.max_output_tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "reasoning": {"effort": None, "summary": None, **(body.reasoning or {})},
        "truncation": body.truncation or "disabled",
        "metadata": body.metadata or {},
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "service_tier": "default",
        "background": False,
        "store": body.store is not False,
    }
