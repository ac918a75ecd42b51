"""What a request of Anthropic's Messages wire asks for, in the words of a chat request.

Source: Anthropic's API reference, "Create a Message". Without effect, because nothing here depends on them: `thinking`,
`cache_control`, `service_tier`, `container`, `output_config.effort`, and fields that we do not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.wire.media import readable, readable_results
from services.gateway.wire.requests import ChatBody, ChatRequest, UnknownTools, understood
from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.tools import JsonObject, Tool

# Blocks that are text in another form.
READ_AS_TEXT = ("document", "search_result", "compaction")

# What a message of each role may hold.
BLOCKS = {
    "user": ("text", "tool_result", "document", "search_result"),
    "assistant": ("text", "tool_use", "compaction"),
    "system": ("text",),
}

RESULT_BLOCKS = ("text", "tool_reference", "document", "search_result", "browser_state")

# What says nothing to our models: what an assistant said to itself; what Anthropic's own tools did in a conversation that began
# elsewhere, for what came of it is in the text that follows; which of the tools may be called, for here it is all of them.
LEFT_OUT = {
    "user": (),
    "assistant": (
        "thinking", "redacted_thinking", "fallback", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
        "tool_search_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result", "advisor_tool_result", "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing",
    ),
    "system": ("tool_addition", "tool_removal"),
}  # fmt: skip

CHOICES: dict[str, Callable[[JsonObject], str | JsonObject]] = {
    "auto": lambda _: "auto",
    "any": lambda _: "required",
    "none": lambda _: "none",
    "tool": lambda choice: {"type": "function", "function": {"name": choice.get("name")}},
}

# Claude Code begins its system prompt with such a block. It differs in every request, so no engine could reuse what follows.
BILLING = "x-anthropic-billing-header"


class ThreadsUnsupported(InvalidRequest):
    """Conversations are not kept on this wire; by this code Anthropic's clients know to send them whole."""

    code = "thread_unsupported_request"


class Metadata(BaseModel):
    """`metadata` of a request."""

    model_config = ConfigDict(extra="allow")

    user_id: str | None = None


class MessagesBody(BaseModel):
    """A Messages request as it arrives; unknown fields are accepted."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    messages: list[Any] = Field(min_length=1)
    system: Any = None
    tools: list[Any] | None = None
    tool_choice: JsonObject | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    metadata: Metadata | None = None
    output_config: JsonObject | None = None
    output_format: JsonObject | None = None
    thread: JsonObject | None = None


class CountBody(MessagesBody):
    """A request to count tokens ("Count tokens in a Message"), in which nothing is written."""

    max_tokens: int = Field(default=1, ge=1)


def understood_messages(
    body: MessagesBody, *, default_tools: Sequence[Tool], session: str | None, unknown_tools: UnknownTools
) -> ChatRequest:
    """The request as a chat request; `unknown_tools` says what becomes of tools that only Anthropic's models know.

    Raises:
        InvalidRequest: naming the field, what it holds, and what is possible.
    """
    if body.thread is not None:
        raise ThreadsUnsupported("`thread` is not supported here; send the whole conversation without it", param="thread")
    fields: JsonObject = {
        "model": body.model,
        "messages": _messages(body),
        "tools": _tools(body.tools or [], unknown_tools),
        "max_tokens": body.max_tokens,
        "stop": body.stop_sequences or None,
        "stream": body.stream,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "response_format": _response_format(body),
        "user": body.metadata.user_id if body.metadata else None,
        **_choice(body.tool_choice),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    request = understood(ChatBody.model_validate(given), default_tools=default_tools, session=session)
    # No field of a chat request, but the engine knows it.
    return replace(request, relayed={**request.relayed, "top_k": body.top_k}) if body.top_k else request


def _messages(body: MessagesBody) -> list[JsonObject]:
    system = [block for block in _blocks(body.system or [], BLOCKS["system"], "system") if not block["text"].startswith(BILLING)]
    messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    called: set[str] = set()
    for index, message in enumerate(readable_results(body.messages)):
        where = f"messages.{index}"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in BLOCKS:
            raise InvalidRequest(f"{where}.role is {role!r}; it is 'user', 'assistant' or 'system'", param=f"{where}.role")
        blocks = _blocks(message.get("content"), BLOCKS[role], f"{where}.content", left_out=LEFT_OUT[role])
        messages += [_assistant(blocks, where, called)] if role == "assistant" else _said(role, blocks, where, called)
    if not messages:
        raise InvalidRequest("messages hold nothing to answer", param="messages")
    return messages


def _blocks(content: Any, possible: Sequence[str], where: str, *, left_out: Sequence[str] = ()) -> list[JsonObject]:
    """The blocks of `content`, each of a `possible` type, without those that are `left_out`; text is one block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} is neither text nor a list of blocks", param=where)
    blocks: list[JsonObject] = []
    for index, block in enumerate(content):
        at = f"{where}.{index}"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in left_out:
            continue
        if kind not in possible:
            raise InvalidRequest(
                f"{at} is a block of type {kind!r:.100}; this deployment reads text only, possible here: {', '.join(possible)}",
                param=at,
            )
        if kind == "text" and not isinstance(block.get("text"), str):
            raise InvalidRequest(f"{at}.text is {block.get('text')!r:.100}, not a text", param=f"{at}.text")
        blocks.append({"type": "text", "text": _text_of(block, at)} if kind in READ_AS_TEXT else block)
    return blocks


def _text_of(block: JsonObject, where: str) -> str:
    """The text of a document, a search result, or a summary of what came before."""
    told = block.get("content")
    named = [block[name] for name in ("title", "context", "source") if isinstance(block.get(name), str)]
    if block["type"] == "document":
        source = block["source"] if isinstance(block.get("source"), dict) else {}
        if source.get("type") not in ("text", "content"):
            raise InvalidRequest(
                f"{where}.source is of type {source.get('type')!r:.100}; this deployment reads text only, possible here: text, "
                "content",
                param=f"{where}.source",
            )
        told = source.get("data" if source["type"] == "text" else "content")
    elif block["type"] == "compaction":
        # None: it failed, and what came before is still there.
        told, named = told or [], ["What was said before, in short:"] if told else []
    return "\n".join([*named, *(part["text"] for part in _blocks(told, ("text",), f"{where}.content"))])


def _assistant(blocks: list[JsonObject], where: str, called: set[str]) -> JsonObject:
    calls = [_call(block, f"{where}.content.{index}") for index, block in enumerate(blocks) if block["type"] == "tool_use"]
    called.update(call["id"] for call in calls)
    texts = [block for block in blocks if block["type"] == "text"]
    message: JsonObject = {"role": "assistant", "content": texts or None}
    return {**message, "tool_calls": calls} if calls else message


def _call(block: JsonObject, where: str) -> JsonObject:
    for field, kind, wanted in (("id", str, "a text"), ("name", str, "a text"), ("input", dict, "an object")):
        if not isinstance(block.get(field), kind):
            raise InvalidRequest(f"{where}.{field} is {block.get(field)!r:.100}, not {wanted}", param=f"{where}.{field}")
    arguments = _json(block["input"], f"{where}.input")
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _said(role: str, blocks: list[JsonObject], where: str, called: set[str]) -> list[JsonObject]:
    """One message for every tool result, and one for the texts in between."""
    messages: list[JsonObject] = []
    for index, block in enumerate(blocks):
        if block["type"] == "tool_result":
            messages.append(_result(block, f"{where}.content.{index}", called))
        elif messages and messages[-1]["role"] == role:
            messages[-1]["content"].append(block)
        else:
            messages.append({"role": role, "content": [block]})
    if not messages and role == "user":
        raise InvalidRequest(f"{where}.content is empty", param=f"{where}.content")
    return messages


def _result(block: JsonObject, where: str, called: set[str]) -> JsonObject:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str) or call_id not in called:
        raise InvalidRequest(
            f"{where}.tool_use_id {call_id!r:.100} answers no tool_use of an assistant message before it",
            param=f"{where}.tool_use_id",
        )
    parts = _blocks(readable(block.get("content") or ""), RESULT_BLOCKS, f"{where}.content")
    texts = [_told(part, where) for part in parts]
    # Chat messages have no mark for it, and a model that does not see it takes the message for a result.
    text = "\n".join(["Error:", *texts] if block.get("is_error") is True else texts)
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def _told(part: JsonObject, where: str) -> str:
    match part["type"]:
        case "tool_reference":
            # A tool that the client found: every tool of the request may be called anyway.
            return f"{part.get('tool_name')!s:.128}"
        case "browser_state":
            return _json({name: part[name] for name in ("tabs", "state_changes") if name in part}, f"{where}.content")
        case _:
            return str(part["text"])


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise InvalidRequest(f"{where} is nested too deeply", param=where) from None


def _tools(entries: list[Any], unknown_tools: UnknownTools) -> list[JsonObject]:
    tools = []
    for index, entry in enumerate(entries):
        where = f"tools.{index}"
        if not isinstance(entry, dict):
            raise InvalidRequest(f"{where} is not an object", param=where)
        kind = entry.get("type") or "custom"
        if kind == "custom":
            tools.append(_tool(entry, where))
        elif unknown_tools == "refuse":
            raise InvalidRequest(
                f"{where} is of type {kind!r:.100}, which is defined by Anthropic and not by the request; send it with a `name` "
                "and an `input_schema`, or have the operator set unknown_tools to ignore",
                param=f"{where}.type",
            )
    return tools


def _tool(entry: JsonObject, where: str) -> JsonObject:
    name, schema = entry.get("name"), entry.get("input_schema")
    if not isinstance(name, str):
        raise InvalidRequest(f"{where}.name is {name!r:.100}, not a text", param=f"{where}.name")
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{where}.input_schema is not a JSON Schema object", param=f"{where}.input_schema")
    function: JsonObject = {"name": name, "description": entry.get("description") or "", "parameters": schema}
    if isinstance(entry.get("strict"), bool):
        function["strict"] = entry["strict"]
    return {"type": "function", "function": function}


def _choice(choice: JsonObject | None) -> JsonObject:
    if choice is None:
        return {}
    kind = choice.get("type")
    if not isinstance(kind, str) or kind not in CHOICES:
        raise InvalidRequest(f"tool_choice.type is {kind!r:.100}; it is {', '.join(CHOICES)}", param="tool_choice.type")
    fields: JsonObject = {"tool_choice": CHOICES[kind](choice)}
    if isinstance(choice.get("disable_parallel_tool_use"), bool):
        fields["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return fields


def _response_format(body: MessagesBody) -> JsonObject | None:
    """Chat's `response_format` for `output_config.format`, or for the `output_format` of clients from before it."""
    wanted = (body.output_config or {}).get("format") or body.output_format
    if wanted is None:
        return None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise InvalidRequest(
            "output_config.format is no object of type 'json_schema' with a `schema`", param="output_config.format"
        )
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}
