"""Replies as OpenAI would write them: one state machine turns the events of a turn into a body or into chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped
from services.shared.contracts.errors import UpstreamError
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage


class Reply:
    """The reply to one request, built event by event.

    Streamed and whole replies come from the same chunks, so a client gets the same content either way: the role first,
    name and id of a call exactly once, its arguments as one JSON text, one finish reason, and usage last.
    """

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._frame: JsonObject = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._usage = Usage()
        self._opened = False
        self._body: JsonObject | None = None
        self._message: JsonObject = {"role": "assistant", "content": None, "refusal": None}
        self._finish: str | None = None

    def chunks(self, event: Event) -> Iterable[JsonObject]:
        """The chunks that an event of a streamed turn gives."""
        match event:
            case Selected(selection, toolset):
                self._usage += selection.usage
                if selection.release is not None:
                    self._frame["system_fingerprint"] = f"{toolset}@{selection.release}"
            case CallOpened(call_id, tool):
                call = {"index": 0, "id": call_id, "type": "function", "function": {"name": tool, "arguments": ""}}
                yield self._delta({"content": None, "tool_calls": [call]})
            case CallWritten(generated):
                self._usage += generated.usage
                yield self._delta({"tool_calls": [{"index": 0, "function": {"arguments": generated.arguments}}]})
                yield self._delta({}, finish="length" if generated.finish_reason == "length" else "tool_calls")
            case Stopped(text):
                yield self._delta({"content": text})
                yield self._delta({}, finish="stop")
            case AnswerChunk(chunk):
                if chunk.get("usage"):
                    self._usage += Usage.of_reply(chunk)
                for choice in chunk.get("choices", []):
                    yield self._relayed(choice)
            case Answered():
                raise AssertionError("a streamed turn has no whole answer")

    def last_chunks(self) -> Iterable[JsonObject]:
        """What follows the last event: the usage chunk, if the client asked for one."""
        if self._finish is None:
            raise UpstreamError("the turn ended without a finish reason")
        if self._include_usage:
            yield {**self._frame, "object": "chat.completion.chunk", "choices": [], "usage": usage_object(self._usage)}

    def add(self, event: Event) -> None:
        """Takes an event of a turn that is not streamed."""
        if isinstance(event, Answered):
            self._usage += Usage.of_reply(event.body)
            self._body = event.body
            return
        for chunk in self.chunks(event):
            self._merge(chunk["choices"][0])

    def body(self) -> JsonObject:
        """The whole reply."""
        if self._body is not None:
            choices = [_whole_choice(choice) for choice in self._body["choices"]]
        elif self._finish is not None:
            choices = [{"index": 0, "message": self._message, "logprobs": None, "finish_reason": self._finish}]
        else:
            raise UpstreamError("the turn ended without a finish reason")
        return {**self._frame, "object": "chat.completion", "choices": choices, "usage": usage_object(self._usage)}

    def _delta(self, delta: JsonObject, *, finish: str | None = None) -> JsonObject:
        if not self._opened:
            delta = {"role": "assistant", **delta}
            self._opened = True
        self._finish = finish or self._finish
        return self._chunk({"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish})

    def _relayed(self, choice: JsonObject) -> JsonObject:
        self._opened = True
        self._finish = choice.get("finish_reason") or self._finish
        delta = _known_fields(choice.get("delta") or {})
        return self._chunk(
            {
                "index": choice["index"],
                "delta": delta,
                "logprobs": choice.get("logprobs"),
                "finish_reason": choice.get("finish_reason"),
            }
        )

    def _chunk(self, choice: JsonObject) -> JsonObject:
        chunk = {**self._frame, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _merge(self, choice: JsonObject) -> None:
        delta = choice["delta"]
        if delta.get("content"):
            self._message["content"] = delta["content"]
        for call in delta.get("tool_calls", []):
            if "id" in call:
                self._message["tool_calls"] = [{key: value for key, value in call.items() if key != "index"}]
            else:
                self._message["tool_calls"][0]["function"]["arguments"] += call["function"]["arguments"]


def usage_object(usage: Usage) -> JsonObject:
    """OpenAI's usage object, with its details."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _whole_choice(choice: JsonObject) -> JsonObject:
    return {
        "index": choice["index"],
        "message": {"role": "assistant", "content": None, "refusal": None, **_known_fields(choice["message"])},
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice["finish_reason"],
    }


def _known_fields(message: JsonObject) -> JsonObject:
    """OpenAI's fields only; the engine's `reasoning` under the name that clients read."""
    known: JsonObject = {key: message[key] for key in ("role", "content", "refusal") if key in message}
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        known["reasoning_content"] = reasoning
    return known
