"""Messages as Anthropic would write them: clean chat chunks become its events, and the events a message.

Source: Anthropic's API reference, "Streaming Messages" and "Errors".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pydantic_core

from services.gateway.events import AnswerChunk, Answered, Event
from services.gateway.wire.replies import Reply
from services.shared.contracts.tools import JsonObject

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

# What happened, by HTTP status; other statuses below 500 are the request's fault, others above are ours.
ERROR_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


class MessageReply:
    """The reply to one request, built event by event; a whole one is what the events of a streamed one add up to.

    Tool calls keep the ids that they have on the other wires (`call_…`, where Anthropic says `toolu_…`): to clients an id is
    opaque, and a conversation may go on over another wire. What a model thinks before it answers is left out.
    """

    def __init__(self, model: str, turn_id: str) -> None:
        self._chat = Reply(model, turn_id, include_usage=True)
        self._message: JsonObject = {
            "id": f"msg_{turn_id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._has_begun = False
        self._is_open = False
        self._arguments = ""
        self._finish = "stop"
        self._stop_sequence: str | None = None

    def opening(self) -> Iterator[JsonObject]:
        """`message_start`, the first time."""
        if not self._has_begun:
            self._has_begun = True
            yield {"type": "message_start", "message": {**self._message, "content": []}}

    def events(self, event: Event) -> Iterator[JsonObject]:
        """What an event of the turn gives."""
        yield from self.opening()
        if isinstance(event, AnswerChunk | Answered):
            self._note_stop_sequence(event.chunk if isinstance(event, AnswerChunk) else event.body)
        for chunk in self._chat.chunks(event):
            yield from self._translated(chunk)

    def last_events(self) -> Iterator[JsonObject]:
        """What follows the last event of the turn.

        Raises:
            UpstreamError: the engine's answer has no end.
        """
        usage: JsonObject = {}
        for chunk in self._chat.last_chunks():
            yield from self._translated(chunk)
            usage = chunk["usage"] or {}
        yield from self._close()
        reason = STOP_REASONS.get(self._finish, "end_turn")
        if reason == "end_turn" and self._stop_sequence is not None:
            reason = "stop_sequence"
        told = {"stop_reason": reason, "stop_sequence": self._stop_sequence if reason == "stop_sequence" else None}
        self._message |= {**told, "usage": _usage(usage)}
        yield {"type": "message_delta", "delta": told, "usage": self._message["usage"]}
        yield {"type": "message_stop"}

    def add(self, event: Event) -> None:
        """Takes an event of a turn that is not streamed."""
        for _ in self.events(event):
            pass

    def body(self) -> JsonObject:
        """The whole reply.

        Raises:
            UpstreamError: the engine's answer has no end.
        """
        for _ in self.last_events():
            pass
        return self._message

    def _translated(self, chunk: JsonObject) -> Iterator[JsonObject]:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                if not self._is_open or self._message["content"][-1]["type"] != "text":
                    yield from self._open({"type": "text", "text": ""})
                self._message["content"][-1]["text"] += text
                yield self._delta({"type": "text_delta", "text": text})
            for call in delta.get("tool_calls") or []:
                if "id" in call:
                    yield from self._open({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {}})
                if arguments := call["function"].get("arguments"):
                    self._arguments += arguments
                    yield self._delta({"type": "input_json_delta", "partial_json": arguments})
            self._finish = choice["finish_reason"] or self._finish

    def _open(self, block: JsonObject) -> Iterator[JsonObject]:
        yield from self._close()
        self._message["content"].append(block)
        self._is_open = True
        yield {"type": "content_block_start", "index": self._index, "content_block": dict(block)}

    def _close(self) -> Iterator[JsonObject]:
        if self._is_open:
            block = self._message["content"][-1]
            if block["type"] == "tool_use":
                block["input"] = _object(self._arguments)
                self._arguments = ""
            self._is_open = False
            yield {"type": "content_block_stop", "index": self._index}

    def _delta(self, delta: JsonObject) -> JsonObject:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self._message["content"]) - 1

    def _note_stop_sequence(self, answer: JsonObject) -> None:
        for choice in answer.get("choices") or []:
            # vLLM says here which text it stopped at; a number is a token that ends every answer.
            if isinstance(choice.get("stop_reason"), str):
                self._stop_sequence = choice["stop_reason"]


def error_body(envelope: JsonObject, status: int, request_id: str | None) -> JsonObject:
    """Anthropic's error object for one of OpenAI's; our stable code goes where its clients look for theirs.

    No engine is a 503, as on the other wires, which proxies know, and not Anthropic's own 529; the type is the same.
    """
    error = envelope["error"]
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    told = {"type": kind, "message": error["message"], "details": {"error_code": error["code"]}}
    return {"type": "error", "error": told, "request_id": request_id}


def _usage(usage: JsonObject) -> JsonObject:
    """Anthropic counts prompt tokens that came from a cache apart."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": max(0, usage.get("prompt_tokens", 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens", 0),
    }


def _object(arguments: str) -> JsonObject:
    """The arguments as an object; of a text that `max_tokens` has cut, what came whole, as clients read a stream."""
    try:
        found = json.loads(arguments)
    except ValueError:
        found = _partial(arguments)
    return found if isinstance(found, dict) else {}


def _partial(arguments: str) -> object:
    try:
        return pydantic_core.from_json(arguments, allow_partial=True)
    except ValueError:
        return None
