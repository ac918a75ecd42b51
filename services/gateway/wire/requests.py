"""What a chat completion request asks for: the fields we act on, checked, and the rest as the engine may see it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.gateway.wire.media import not_shown, readable_results
from services.shared.contracts.errors import InvalidRequest, InvalidToolSchema
from services.shared.contracts.messages import normalised
from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import JsonObject, Tool

MAX_TOOLS = 128
# Levels of JSON in messages and tools. No schema of a person has half as many, and every recursion behind this one bears them.
MAX_DEPTH = 128

UnknownTools = Literal["ignore", "refuse"]

# Fields of an OpenAI chat request that have no effect here. All others that no `ChatBody` has are unknown.
WITHOUT_EFFECT = {
    "metadata", "moderation", "prediction", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
    "safety_identifier", "service_tier", "store", "verbosity", "web_search_options",
}  # fmt: skip

# Fields of an OpenAI chat request that the base model's answer may depend on. Other fields are accepted and have no effect.
RELAYED = (
    "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n", "presence_penalty",
    "response_format", "seed", "stop", "temperature", "top_logprobs", "top_p",
)  # fmt: skip


# How vLLM is told that its answer goes on where the last message stops.
CONTINUING: JsonObject = {"continue_final_message": True, "add_generation_prompt": False}


# OpenAI takes 0 and engines do not; so little leaves the likeliest token only, too.
LEAST_TOP_P = 1e-6
TopP = Annotated[float, Field(ge=0, le=1), AfterValidator(lambda share: max(share, LEAST_TOP_P))]


class StreamOptions(BaseModel):
    """`stream_options` of a streamed request."""

    include_usage: bool | None = None


class ChatBody(BaseModel):
    """A chat completion request as it arrives; unknown fields are accepted."""

    model_config = ConfigDict(extra="allow", strict=False)

    model: str = Field(min_length=1)
    messages: list[Any] = Field(min_length=1)
    tools: list[Any] | None = None
    tool_choice: str | JsonObject | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: TopP | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Any = None
    response_format: JsonObject | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    metadata: Any = None


@dataclass(frozen=True)
class ToolChoice:
    """How free the choice is: whether text may be the answer, and which tools may be called (None: all)."""

    may_call: bool = True
    may_answer: bool = True
    names: tuple[str, ...] | None = None
    forced: bool = False


@dataclass(frozen=True)
class Sender:
    """Whose request it is, by the name of the API key, and whether it was marked private. Nobody's request is private."""

    private: bool = True
    caller: str = ""


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request, understood; `not_shown` counts the media in it of which the model reads a line only."""

    model: str
    messages: list[JsonObject]
    tools: list[Tool]
    choice: ToolChoice
    stream: bool
    include_usage: bool
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    user: str
    session: str | None
    parallel: bool
    relayed: JsonObject = field(repr=False)
    sender: Sender = Sender()
    not_shown: int = 0


def understood(
    body: ChatBody,
    *,
    default_tools: Sequence[Tool],
    session: str | None,
    strict_fields: bool = False,
    unknown_tools: UnknownTools = "refuse",
    continuing: bool = True,
) -> ChatRequest:
    """The request with tools, choice and messages checked; `default_tools` stand in where the request brings none.

    With `strict_fields` a field that OpenAI does not have is an error; `unknown_tools` are those that are no functions. With
    `continuing`, an answer goes on where a last message of the assistant stops, unless tools may be called.

    Raises:
        InvalidRequest: naming the field, what it holds, and what is possible.
    """
    _check_fields(body, strict=strict_fields)
    given = _whole(readable_results(body.messages), "messages")
    body = body.model_copy(update={"messages": given, "tools": _whole(body.tools, "tools")})
    if body.functions is not None or body.function_call is not None:
        raise InvalidRequest(
            "`functions` and `function_call` are not supported; send `tools` and `tool_choice`", param="functions"
        )
    tools = _tools(body.tools, unknown_tools) if body.tools else list(default_tools)
    choice = _choice(body.tool_choice, tools)
    if tools and choice.may_call and (body.n or 1) > 1:
        raise InvalidRequest("`n` larger than 1 is not possible together with tools; send the request n times", param="n")
    max_tokens = body.max_completion_tokens or body.max_tokens
    relayed = body.model_dump(include=set(RELAYED), exclude_none=True)
    relayed.pop("max_completion_tokens", None)
    if max_tokens:
        relayed["max_tokens"] = max_tokens
    messages = normalised(body.messages)
    if continuing and not (tools and choice.may_call) and _is_begun_answer(messages[-1]):
        relayed |= CONTINUING
    return ChatRequest(
        model=body.model,
        messages=messages,
        tools=tools,
        choice=choice,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        user=body.user or "",
        session=session or body.prompt_cache_key,
        # Not said means one call a turn: a small model asked for more makes some up, and every vote costs.
        parallel=bool(body.parallel_tool_calls),
        relayed=relayed,
        not_shown=not_shown(messages),
    )


def _is_begun_answer(message: JsonObject) -> bool:
    return message["role"] == "assistant" and bool((message["content"] or "").strip()) and "tool_calls" not in message


def _whole(value: Any, where: str, depth: int = 0) -> Any:
    """The value with every half of a surrogate pair replaced: clients that cut text in the middle of an emoji send such."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{where} is nested more than {MAX_DEPTH} levels deep", param=where)
    match value:
        case str() if not value.isascii():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole(part, where, depth + 1) for part in value]
        case dict():
            return {_whole(key, where, depth): _whole(part, where, depth + 1) for key, part in value.items()}
        case _:
            return value


def _check_fields(body: ChatBody, *, strict: bool) -> None:
    strangers = sorted(set(body.model_extra or ()) - WITHOUT_EFFECT - set(RELAYED))
    if strict and strangers:
        near = difflib.get_close_matches(strangers[0], [*ChatBody.model_fields, *RELAYED, *WITHOUT_EFFECT], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidRequest(f"there is no field {strangers[0]!r} in a chat completion request{hint}", param=strangers[0])
    if body.audio is not None or any(kind != "text" for kind in body.modalities or ()):
        raise InvalidRequest('this deployment writes text only; `modalities` may be ["text"]', param="modalities")
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise InvalidRequest(f"stop is {body.stop!r:.100}; it is a text or a list of texts", param="stop")
    kind = (body.response_format or {"type": "text"}).get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest(
            f"response_format.type is {kind!r}; it is 'text', 'json_object' or 'json_schema'", param="response_format"
        )
    named = (body.response_format or {}).get("json_schema")
    if kind == "json_schema" and not (isinstance(named, dict) and isinstance(named.get("schema"), dict)):
        raise InvalidRequest(
            f"response_format.json_schema is {named!r:.100}; it is an object with a `name` and a `schema`",
            param="response_format.json_schema",
        )


def _tools(entries: list[Any], unknown: UnknownTools) -> list[Tool]:
    if len(entries) > MAX_TOOLS:
        raise InvalidRequest(f"{len(entries)} tools were sent; at most {MAX_TOOLS} are possible", param="tools")
    tools: list[Tool] = []
    for index, entry in enumerate(entries):
        kind = entry.get("type") if isinstance(entry, dict) else None
        if unknown == "ignore" and isinstance(kind, str) and kind != "function":
            continue
        tool = _tool(entry, f"tools.{index}")
        if any(tool.name == other.name for other in tools):
            raise InvalidRequest(
                f"tools.{index}: a second tool is called {tool.name!r}; names have to differ", param=f"tools.{index}"
            )
        tools.append(tool)
    return tools


def _tool(entry: Any, where: str) -> Tool:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or entry.get("type") != "function" or not isinstance(function, dict):
        kind = entry.get("type") if isinstance(entry, dict) else entry
        raise InvalidRequest(f"{where} is of type {kind!r}; tools have type 'function' and a `function`", param=where)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not 0 < len(name) <= 128 or not name.isprintable():
        raise InvalidRequest(f"{where}.function.name is {name!r}; a name has 1 to 128 printable characters", param=where)
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidToolSchema(
            f"the parameters of tool {name!r} are {type(parameters).__name__}, not a JSON Schema object",
            param=f"{where}.function.parameters",
        )
    tool = Tool(name=name, description=str(function.get("description") or ""))
    if parameters:
        tool = tool.model_copy(update={"parameters": parameters})
    try:
        compiled_schema(tool)
    except InvalidToolSchema as error:
        raise InvalidToolSchema(error.message, param=f"{where}.function.parameters") from error
    return tool


def _choice(choice: str | JsonObject | None, tools: Sequence[Tool]) -> ToolChoice:
    if choice is None or choice == "auto":
        return ToolChoice()
    if choice == "none":
        return ToolChoice(may_call=False)
    mode: Any = choice if isinstance(choice, str) else choice.get("type")
    if mode not in ("required", "function", "allowed_tools"):
        raise InvalidRequest(
            f"tool_choice is {choice!r}; it is 'none', 'auto', 'required', or an object of type 'function' or 'allowed_tools'",
            param="tool_choice",
        )
    if not tools:
        raise InvalidRequest("tool_choice asks for a tool, but the request has no tools that are functions", param="tool_choice")
    if isinstance(choice, str):
        return ToolChoice(may_answer=False)
    if mode == "function":
        return ToolChoice(may_answer=False, names=_known([choice], tools), forced=True)
    allowed = choice.get("allowed_tools", choice)
    entries = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(entries, list) or not entries or allowed.get("mode") not in ("auto", "required"):
        raise InvalidRequest("tool_choice.allowed_tools needs `mode` ('auto' or 'required') and `tools`", param="tool_choice")
    return ToolChoice(may_answer=allowed["mode"] == "auto", names=_known(entries, tools))


def _known(entries: list[Any], tools: Sequence[Tool]) -> tuple[str, ...]:
    names = [tool.name for tool in tools]
    wanted: list[str] = []
    for entry in entries:
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if name not in names:
            raise InvalidRequest(f"tool_choice names {name!r}, which is not among the tools {names}", param="tool_choice")
        wanted.append(name)
    return tuple(wanted)
