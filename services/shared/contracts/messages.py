"""Conversations in one shape: what clients send as chat messages, brought to the form that prompts are rendered from.

Source: OpenAI's API reference, "Create chat completion", field `messages`, with the `function` role and `function_call` of old.
"""

from __future__ import annotations

import json
from typing import Any

from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.tools import JsonObject

# What a model thought, in the conversations of other providers; it is not read again.
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
ROLES = {"system", "developer", "user", "assistant", "tool", "function"}


def normalised(messages: list[Any]) -> list[JsonObject]:
    """The messages with text content (parts joined), `developer` as `system`, and the arguments of calls as JSON text.

    What a custom tool was called with, which is text, becomes the argument `input`; a `function_call` becomes a tool call, and
    the `function` message right after it that call's result.

    Raises:
        InvalidRequest: naming the message and the field that cannot be understood.
    """
    known_ids: set[str] = set()
    return [_message(_modern(message, index), f"messages.{index}", known_ids) for index, message in enumerate(messages)]


def _modern(message: Any, index: int) -> Any:
    """A message of the time before `tool_calls`, as one of today; others as they are."""
    if not isinstance(message, dict):
        return message
    # There was one call a message, without an id, and its result was the next message.
    if message.get("role") == "assistant" and message.get("function_call") and not message.get("tool_calls"):
        call = {"id": f"function_{index}", "type": "function", "function": message["function_call"]}
        return {**message, "tool_calls": [call]}
    return {**message, "tool_call_id": f"function_{index - 1}"} if message.get("role") == "function" else message


def _message(message: Any, where: str, known_ids: set[str]) -> JsonObject:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where} is not an object", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"{where}.role is {role!r}; known roles are {', '.join(sorted(ROLES))}", param=f"{where}.role")
    role = {"developer": "system", "function": "tool"}.get(role, role)
    plain: JsonObject = {"role": role, "content": _text(message.get("content"), where, role)}
    if isinstance(message.get("name"), str):
        plain["name"] = message["name"]
    if role == "assistant" and message.get("tool_calls"):
        plain["tool_calls"] = _calls(message["tool_calls"], where, known_ids)
    if role == "tool":
        plain["tool_call_id"] = message.get("tool_call_id")
        if not isinstance(plain["tool_call_id"], str) or plain["tool_call_id"] not in known_ids:
            field = "name" if message["role"] == "function" else "tool_call_id"
            raise InvalidRequest(
                f"{where}.{field} {message.get(field)!r} answers no tool call of an assistant message before it",
                param=f"{where}.{field}",
            )
    if plain["content"] is None and role in ("system", "user", "tool"):
        raise InvalidRequest(f"{where}.content is missing", param=f"{where}.content")
    return plain


def _text(content: Any, where: str, role: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content is neither text nor a list of parts", param=f"{where}.content")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if role == "assistant" and kind in THOUGHTS:
            continue
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else part
        if kind not in ("text", "input_text", "output_text", "refusal") or not isinstance(text, str):
            raise InvalidRequest(
                f"{where}.content.{index} is a part of type {kind!r}; this deployment reads text only",
                param=f"{where}.content.{index}",
            )
        texts.append(text)
    return "\n".join(texts)


def _calls(calls: Any, where: str, known_ids: set[str]) -> list[JsonObject]:
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where}.tool_calls is not a list", param=f"{where}.tool_calls")
    plain = []
    for index, call in enumerate(calls):
        function = _function(call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            at = f"{where}.tool_calls.{index}"
            raise InvalidRequest(f"{at} is not a call of a function or a custom tool with a name", param=at)
        known_ids.add(str(call.get("id")))
        name, arguments = function["name"], function.get("arguments")
        plain.append({"id": call.get("id"), "type": "function", "function": {"name": name, "arguments": _arguments(arguments)}})
    return plain


def _function(call: JsonObject) -> Any:
    if call.get("type") == "custom" and isinstance(custom := call.get("custom"), dict):
        return {"name": custom.get("name"), "arguments": {"input": custom.get("input") or ""}}
    return call.get("function")


def _arguments(arguments: Any) -> str:
    """JSON text of an object, as OpenAI has it. A call that was cut short is kept as a value, for templates and engines read
    only objects."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    text = arguments if isinstance(arguments, str) and arguments else "{}"
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    return text if is_object else json.dumps({"unparsed_arguments": text}, ensure_ascii=False)
