"""Conversations in one shape: what clients send as chat messages, brought to the form that prompts are rendered from."""

from __future__ import annotations

import json
from typing import Any

from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.tools import JsonObject

ROLES = {"system", "developer", "user", "assistant", "tool"}


def normalised(messages: list[Any]) -> list[JsonObject]:
    """The messages with text content (parts joined), `developer` as `system`, and the arguments of calls as objects.

    Raises:
        InvalidRequest: naming the message and the field that cannot be understood.
    """
    known_ids: set[str] = set()
    return [_message(message, f"messages.{index}", known_ids) for index, message in enumerate(messages)]


def _message(message: Any, where: str, known_ids: set[str]) -> JsonObject:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where} is not an object", param=where)
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRequest(f"{where}.role is {role!r}; known roles are {', '.join(sorted(ROLES))}", param=f"{where}.role")
    plain: JsonObject = {"role": "system" if role == "developer" else role, "content": _text(message.get("content"), where)}
    if isinstance(message.get("name"), str):
        plain["name"] = message["name"]
    if role == "assistant" and message.get("tool_calls"):
        plain["tool_calls"] = _calls(message["tool_calls"], where, known_ids)
    if role == "tool":
        plain["tool_call_id"] = message.get("tool_call_id")
        if plain["tool_call_id"] not in known_ids:
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


def _arguments(arguments: Any) -> Any:
    """An object where there is one: templates print it as JSON. Other text stays, since history is not ours to mend."""
    if not isinstance(arguments, str):
        return arguments if isinstance(arguments, dict) else {}
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments
