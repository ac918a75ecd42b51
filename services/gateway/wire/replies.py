"""Chat completions as OpenAI would write them: the events of a turn become chunks, and the chunks a body."""

from __future__ import annotations

import time
from collections.abc import Iterator

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped, Withheld
from services.gateway.wire.normaliser import Choice
from services.shared.contracts.errors import UpstreamError
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage


class Reply:
    """The reply to one request, built event by event.

    Whole replies are what the chunks of streamed ones add up to, so a client gets the same content either way.
    """

    def __init__(self, model: str, reply_id: str, *, include_usage: bool = False) -> None:
        self._frame: JsonObject = {"id": reply_id, "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._usage = Usage()
        # An engine may tell its usage with every chunk, counted from the start.
        self._answer_usage = Usage()
        self._choices: dict[int, Choice] = {}
        self._calls = 0
        self._finish: str | None = None

    def chunks(self, event: Event) -> Iterator[JsonObject]:
        """The chunks that an event gives."""
        match event:
            # The most frequent one first.
            case AnswerChunk(chunk):
                if chunk.get("usage"):
                    self._answer_usage = Usage.of_reply(chunk)
                for choice in chunk.get("choices") or []:
                    yield from self._take(choice)
            case Selected(selection, toolset):
                self._usage += selection.usage
                if selection.release is not None:
                    self._frame["system_fingerprint"] = f"{toolset}@{selection.release}"
            case Withheld(usage):
                self._usage += usage
            case CallOpened(call_id, tool):
                call = {"index": self._calls, "id": call_id, "function": {"name": tool}}
                self._calls += 1
                yield from self._take({"delta": {"tool_calls": [call]}})
            case CallWritten(generated):
                self._usage += generated.usage
                written = {"index": self._calls - 1, "function": {"arguments": generated.arguments}}
                yield from self._take({"delta": {"tool_calls": [written]}})
                # Another call may follow; the turn's end is the end of its events.
                self._finish = "length" if generated.finish_reason == "length" else "tool_calls"
            case Stopped(text):
                yield from self._take({"delta": {"content": text}, "finish_reason": "stop"})
            case Answered(body):
                self._answer_usage = Usage.of_reply(body)
                for choice in body["choices"]:
                    yield from self._take({**choice, "delta": choice["message"]})

    def last_chunks(self) -> Iterator[JsonObject]:
        """What follows the last event: the end of a turn that called, and the usage chunk if the client asked for one.

        Raises:
            UpstreamError: the engine's answer has no end.
        """
        if self._finish is not None:
            yield from self._take({"finish_reason": self._finish})
        if not self._choices or any(choice.finish_reason is None for choice in self._choices.values()):
            raise UpstreamError("the turn ended without a finish reason")
        if self._include_usage:
            yield {**self._frame, "object": "chat.completion.chunk", "choices": [], "usage": self._usage_object()}

    def add(self, event: Event) -> None:
        """Takes an event of a turn that is not streamed."""
        for _ in self.chunks(event):
            pass

    def body(self) -> JsonObject:
        """The whole reply.

        Raises:
            UpstreamError: the engine's answer has no end.
        """
        for _ in self.last_chunks():
            pass
        choices = [
            {"index": index, "message": choice.message, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
            for index, choice in sorted(self._choices.items())
        ]
        return {**self._frame, "object": "chat.completion", "choices": choices, "usage": self._usage_object()}

    def _take(self, raw: JsonObject) -> Iterator[JsonObject]:
        index = raw.get("index") or 0
        if (taking := self._choices.get(index)) is None:
            taking = self._choices[index] = Choice(index)
        for choice in taking.take(raw):
            chunk = {**self._frame, "object": "chat.completion.chunk", "choices": [choice]}
            if self._include_usage:
                chunk["usage"] = None
            yield chunk

    def _usage_object(self) -> JsonObject:
        return usage_object(self._usage + self._answer_usage)


def usage_object(usage: Usage) -> JsonObject:
    """OpenAI's usage object, with its details."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
