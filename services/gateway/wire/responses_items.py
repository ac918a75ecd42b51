"""Items, in which the Responses API speaks of a conversation: as clients send them, as they are shown again, as chat messages.

Source: OpenAI's API reference, "Create a model response", field `input`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from services.gateway.records.stored import History, item_id
from services.gateway.wire.media import readable_results
from services.shared.contracts.errors import InvalidRequest, NotFound
from services.shared.contracts.tools import JsonObject

ROLES = ("user", "system", "developer", "assistant")
ITEMS = (
    "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "local_shell_call",
    "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output", "reasoning",
    "item_reference",
)  # fmt: skip
# Calls that the client itself carried out: the tool, and the field with what it was asked for.
CLIENT_CALLS = {
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
CLIENT_OUTPUTS = tuple(f"{kind}_output" for kind in CLIENT_CALLS)
# What says nothing to our models: what another provider's models thought, what its tools did (what came of it is in the message
# that follows), screenshots, and what only configures.
LEFT_OUT = (
    "reasoning", "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "tool_search_call",
    "tool_search_output", "mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response", "computer_call",
    "computer_call_output", "program", "program_output", "additional_tools", "configuration_update",
)  # fmt: skip
# What a compaction of ours begins with.
OURS = "agentflux1."
TEXT_PARTS = ("input_text", "output_text", "text")


class OpenCall(BaseModel):
    """A call whose result is still to come."""

    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str


class Compacted(BaseModel):
    """What an item of `compaction` holds."""

    summary: str
    calls: list[OpenCall]


def input_items(given: Any, *, history: History, referenced: Mapping[str, JsonObject]) -> list[JsonObject]:
    """The items of a request's `input` (text, or a list of items) as OpenAI shows them; only those have an id that came with one.

    Raises:
        InvalidRequest: naming the item and the field that cannot be understood.
        NotFound: an `item_reference` means nothing in `referenced`.
    """
    entries = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if entries is None and history.items:
        entries = []
    if not isinstance(entries, list):
        raise InvalidRequest(f"input is {given!r:.100}; it is text or a list of items", param="input")
    known_calls = {call.call_id for item in history.items for call in _calls_in(item)}
    items: list[JsonObject] = []
    for index, entry in enumerate(readable_results(entries)):
        where = f"input.{index}"
        item = _item(entry, where, referenced)
        if item is None:
            continue
        known_calls.update(call.call_id for call in _calls_in(item))
        if item["type"] == "function_call_output" and item["call_id"] not in known_calls:
            raise InvalidRequest(
                f"{where}.call_id {item['call_id']!r} answers no function_call before it; send that call as an item, or its "
                "response as `previous_response_id`",
                param=f"{where}.call_id",
            )
        items.append(item)
    if not items and not history.items:
        raise InvalidRequest("input holds nothing to answer; it is text or a list of items", param="input")
    return items


def with_ids(items: Sequence[JsonObject], response_id: str) -> list[JsonObject]:
    """The items of a response's input, each with an id of its own; one that came with such an id keeps it."""
    known: dict[str, JsonObject] = {}
    for number, item in enumerate(items):
        own = item.get("id")
        unique = own if own and own not in known else item_id(response_id, number, item["type"])
        known[unique] = {**item, "id": unique}
    return list(known.values())


def references(given: Any) -> list[str]:
    """The item ids that a request's `input` refers to."""
    entries = given if isinstance(given, list) else []
    return [str(entry.get("id")) for entry in entries if isinstance(entry, dict) and _kind(entry) == "item_reference"]


def messages_of(items: Sequence[JsonObject]) -> list[JsonObject]:
    """Items as chat messages. Calls join the assistant's message right before them, as one turn of the model; a compaction stands
    for everything before it but what the user said, and its calls wait for their results."""
    messages: list[JsonObject] = []
    for item in items:
        match item["type"]:
            case "message":
                messages.append({"role": item["role"], "content": item["content"]})
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                calls, call = messages[-1].setdefault("tool_calls", []), _chat_call(OpenCall(**item))
                # A client may repeat a call that is in the compaction before it.
                calls += [call] if call not in calls else []
            case "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
            case "compaction" if kept := _kept(item):
                messages = [message for message in messages if message["role"] not in ("assistant", "tool")]
                messages.append({"role": "assistant", "content": f"What was said before, in short:\n{kept.summary}"})
                if kept.calls:
                    messages[-1]["tool_calls"] = [_chat_call(call) for call in kept.calls]
    return messages


def open_calls(items: Sequence[JsonObject]) -> list[OpenCall]:
    """The calls without a result."""
    calls: dict[str, OpenCall] = {}
    for item in items:
        calls |= {call.call_id: call for call in _calls_in(item)}
        if item["type"] == "function_call_output":
            calls.pop(item["call_id"], None)
    return list(calls.values())


def _item(entry: Any, where: str, referenced: Mapping[str, JsonObject]) -> JsonObject | None:
    """An item in the shape that OpenAI shows it in; None for one that says nothing to our models."""
    if not isinstance(entry, dict):
        raise InvalidRequest(f"{where} is {entry!r:.100}; an item is an object", param=where)
    kind = _kind(entry)
    own_id = {"id": entry["id"]} if isinstance(entry.get("id"), str) and entry["id"] else {}
    match kind:
        case "message":
            return {**own_id, "type": "message", "status": "completed", **_message(entry, where)}
        case "function_call":
            arguments = entry.get("arguments")
            return {
                **own_id,
                "type": "function_call",
                "status": "completed",
                "call_id": _text(entry, "call_id", where),
                "name": _text(entry, "name", where),
                "arguments": "{}" if arguments in (None, "") else _text(entry, "arguments", where),
            }
        case "custom_tool_call":
            # A tool that takes text, as one that takes an object: this is what our models know.
            arguments = _json({"input": entry.get("input")}, f"{where}.input")
            return _item({**entry, "type": "function_call", "arguments": arguments}, where, referenced)
        case "function_call_output" | "custom_tool_call_output":
            output = entry.get("output")
            return {
                **own_id,
                "type": "function_call_output",
                "status": "completed",
                "call_id": _text(entry, "call_id", where),
                "output": output if isinstance(output, str) else _parts(output, f"{where}.output", role="tool"),
            }
        case str() if kind in CLIENT_CALLS:
            name, asked = CLIENT_CALLS[kind]
            arguments = _json(entry.get(asked), f"{where}.{asked}")
            return _item({**entry, "type": "function_call", "name": name, "arguments": arguments}, where, referenced)
        case str() if kind in CLIENT_OUTPUTS:
            return _item({**entry, "type": "function_call_output", **_told(entry, where)}, where, referenced)
        case str() if kind in LEFT_OUT:
            return None
        case "compaction" | "compaction_summary":
            if _kept(entry) is None:
                return None
            return {**own_id, "type": "compaction", "encrypted_content": entry["encrypted_content"]}
        case "compaction_trigger":
            raise InvalidRequest(f"{where} asks for a compaction, and has to be the last item for that", param=f"{where}.type")
        case "item_reference":
            wanted = str(entry.get("id"))
            if wanted not in referenced:
                raise NotFound(f"{where}.id: no item {wanted!r:.100} is stored; send the item itself", param=f"{where}.id")
            return referenced[wanted]
        case _:
            raise InvalidRequest(f"{where}.type is {kind!r:.100}; possible are {', '.join(ITEMS)}", param=f"{where}.type")


def compaction(summary: str, calls: Sequence[OpenCall] = ()) -> JsonObject:
    """The item that stands for a conversation, with the `calls` whose results are still to come. The client carries it on, as
    with OpenAI, and nothing is stored; only that it is not encrypted, for it says nothing that the client does not know."""
    kept = json.dumps({"summary": summary, "calls": [call.model_dump() for call in calls]}, ensure_ascii=False)
    return {"type": "compaction", "encrypted_content": OURS + base64.b64encode(kept.encode("utf-8", "replace")).decode()}


def _kept(item: JsonObject) -> Compacted | None:
    """What an item of `compaction` holds; None for those of other providers, which only they can read."""
    held = item.get("encrypted_content")
    if not isinstance(held, str) or not held.startswith(OURS):
        return None
    try:
        return Compacted.model_validate_json(base64.b64decode(held.removeprefix(OURS), validate=True))
    except ValueError:
        return None


def _calls_in(item: JsonObject) -> list[OpenCall]:
    """The calls that results after this item may answer because of it."""
    if item["type"] == "function_call":
        return [OpenCall(**item)]
    kept = _kept(item) if item["type"] == "compaction" else None
    return kept.calls if kept else []


def _chat_call(call: OpenCall) -> JsonObject:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _kind(entry: JsonObject) -> Any:
    """The type of an item, which a message and a reference need not say."""
    return entry.get("type") or ("message" if "role" in entry else "item_reference" if "id" in entry else None)


def _told(entry: JsonObject, where: str) -> JsonObject:
    """What a tool that the client carried out reported, as text, and for which call."""
    output = entry.get("output")
    text = output if isinstance(output, str) else _json(output, f"{where}.output") if output else str(entry.get("status") or "")
    # OpenAI documents the call's id under `id` where the result is one of `local_shell_call`.
    return {"call_id": entry.get("call_id") or entry.get("id"), "output": text}


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise InvalidRequest(f"{where} is nested too deeply", param=where) from None


def _message(entry: JsonObject, where: str) -> JsonObject:
    role, content = entry.get("role"), entry.get("content")
    if role not in ROLES:
        raise InvalidRequest(f"{where}.role is {role!r:.100}; possible are {', '.join(ROLES)}", param=f"{where}.role")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": role, "content": _parts(parts, f"{where}.content", role=role)}


def _parts(parts: Any, where: str, *, role: str) -> list[JsonObject]:
    if not isinstance(parts, list):
        raise InvalidRequest(f"{where} is {parts!r:.100}; it is text or a list of parts", param=where)
    return [_part(part, f"{where}.{index}", role) for index, part in enumerate(parts)]


def _part(part: Any, where: str, role: str) -> JsonObject:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    if kind in TEXT_PARTS and isinstance(text, str):
        return (
            {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            if role == "assistant"
            else {"type": "input_text", "text": text}
        )
    if kind == "refusal" and role == "assistant" and isinstance(text, str):
        return {"type": "refusal", "refusal": text}
    raise InvalidRequest(f"{where} is a part of type {kind!r:.100}; this deployment reads text only", param=where)


def _text(entry: JsonObject, name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{name} is {value!r:.100}; it is a text", param=f"{where}.{name}")
    return value
