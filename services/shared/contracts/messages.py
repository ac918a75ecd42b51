"""Conversations in one shape: what clients send as chat messages, brought to the form that prompts are rendered from."""

from __future__ import annotations

import json
from typing import Any

from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.tools import JsonObject

ROLES = {"system", "developer", "user", "assistant", "tool"}


def normalised(messages: list[Any]) -> list[JsonObject]:
    """The messages with text content (parts joined), `developer` as `system`, and the arguments of calls as JSON text.

    Raises:
        InvalidRequest: naming the message and the field that cannot be understood.
    """
    known_ids: set[str] = set()
    return [_message(message, f"messages.{index}", known_ids) for index, message in enumerate(messages)]


def _message(message: Any, where: str, known_ids: set[str]) -> JsonObject:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where} is not an object", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"{where}.role is {role!r}; known roles are {', '.join(sorted(ROLES))}", param=f"{where}.role")
    plain: JsonObject = {"role": "system" if role == "developer" else role, "content": _text(message.get("content"), where)}
    if isinstance(message.get("name"), str):
        plain["name"] = message["name"]
    if role == "assistant" and message.get("tool_calls"):
        plain["tool_calls"] = _calls(message["tool_calls"], where, known_ids)
    if role == "tool":
        plain["tool_call_id"] = message.get("tool_call_id")
        if not isinstance(plain["tool_call_id"], str) or plain["tool_call_id"] not in known_ids:
            raise InvalidRequest(
                f"{where}.tool_call_id {plain['tool_call_id']!r} answers no tool call of an assistant message before it",
                param=f"{where}.tool_call_id",
            )
    if plain["content"] is None and role in ("system", "developer", "user", "tool"):
        raise InvalidRequest(f"{where}.content is missing", param=f"{where}.content")
    return plain


def _text(content: Any, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content is neither text nor a list of parts", param=f"{where}.content")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
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
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            at = f"{where}.tool_calls.{index}"
            raise InvalidRequest(f"{at} is not a function call with a name", param=at)
        known_ids.add(str(call.get("id")))
        name, arguments = function["name"], function.get("arguments")
        plain.append({"id": call.get("id"), "type": "function", "function": {"name": name, "arguments": _arguments(arguments)}})
    return plain


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
