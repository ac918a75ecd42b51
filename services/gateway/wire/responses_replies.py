"""Replies of the Responses API: one state machine turns the events of a turn into a response object and its stream of events.

Source: OpenAI's API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from services.gateway.events import AnswerChunk, Answered, CallOpened, CallWritten, Event, Selected, Stopped, Withheld
from services.gateway.records.stored import item_id
from services.gateway.wire.normaliser import Choice
from services.gateway.wire.responses_requests import ResponsesRequest
from services.shared.contracts.errors import AgentFluxError, UpstreamError
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

# Why a reply is incomplete, by the finish reason of a chat completion.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

MESSAGE: JsonObject = {"type": "message", "role": "assistant", "content": []}


class ResponseReply:
    """The reply to one request, built event by event: `opening`, `events` for each of the turn, `closing`, and `last`.

    A whole reply is `response` after `closing`: the same steps without looking at the wire's events, so both say the same.
    """

    def __init__(self, request: ResponsesRequest, response_id: str) -> None:
        self.response: JsonObject = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            **request.echo,
            "output": [],
            "usage": None,
        }
        self._input_count = len(request.input)
        self._sequence = 0
        self._usage = Usage()
        # An engine may tell its usage with every chunk, counted from the start.
        self._answer_usage = Usage()
        self._answer = Choice(0)
        self._finish: str | None = None
        self._open: JsonObject | None = None
        self._said: list[str] = []
        self._logprobs: list[JsonObject] = []

    def opening(self) -> Iterable[JsonObject]:
        """What comes before anything has happened."""
        yield self._about_response("response.created")
        yield self._about_response("response.in_progress")

    def events(self, event: Event) -> Iterable[JsonObject]:
        """What an event of the turn gives."""
        match event:
            case Selected(selection, _):
                self._usage += selection.usage
            case Withheld(usage):
                self._usage += usage
            case CallOpened(call_id, tool):
                yield from self._close()
                yield self._opened({"type": "function_call", "call_id": call_id, "name": tool, "arguments": ""})
            case CallWritten(generated):
                self._usage += generated.usage
                if self._finish != "length":
                    self._finish = "length" if generated.finish_reason == "length" else "tool_calls"
                yield self._about_item("response.function_call_arguments.delta", delta=generated.arguments)
                yield from self._close(arguments=generated.arguments, cut=generated.finish_reason == "length")
            case Stopped(text):
                self._finish = "stop"
                yield from self._text(text, [])
            case AnswerChunk(reply) | Answered(reply):
                if reply.get("usage"):
                    self._answer_usage = Usage.of_reply(reply)
                for raw in reply.get("choices") or []:
                    yield from self._answered({**raw, "delta": raw.get("delta") or raw.get("message")})

    def closing(self) -> Iterable[JsonObject]:
        """What follows the last event of the turn; afterwards `response` is as it will be stored.

        Raises:
            UpstreamError: the turn ended without saying why.
        """
        if self._finish is None:
            raise UpstreamError("the turn ended without a finish reason")
        if self._open is None and not self.response["output"]:
            yield from self._open_text(MESSAGE)
        yield from self._close(cut=self._finish in INCOMPLETE)
        self._end(self._finish)

    def last(self) -> JsonObject:
        """The event that ends the stream: `response.completed` or `response.incomplete`."""
        return self._about_response(f"response.{self.response['status']}")

    def failing(self, error: AgentFluxError) -> Iterable[JsonObject]:
        """What ends the stream when the turn fails.

        OpenAI documents the flat fields of `error` and sends the object; client libraries read the one or the other.
        """
        envelope = error.envelope()
        yield self._event("error", **{key: envelope["error"][key] for key in ("code", "message", "param")}, **envelope)
        self.response |= {"status": "failed", "error": {"code": _error_code(error), "message": error.message}}
        yield self._about_response("response.failed")

    def _answered(self, raw: JsonObject) -> Iterable[JsonObject]:
        for choice in self._answer.take(raw):
            logprobs = (choice["logprobs"] or {}).get("content") or []
            if thought := choice["delta"].get("reasoning_content"):
                yield from self._thought(thought)
            if text := choice["delta"].get("content"):
                yield from self._text(text, logprobs)
            self._finish = choice["finish_reason"] or self._finish

    def _thought(self, text: str) -> Iterable[JsonObject]:
        yield from self._open_text({"type": "reasoning", "summary": [], "content": [], "encrypted_content": None})
        self._said.append(text)
        yield self._about_item("response.reasoning_text.delta", content_index=0, delta=text)

    def _text(self, text: str, logprobs: list[JsonObject]) -> Iterable[JsonObject]:
        yield from self._open_text(MESSAGE)
        self._said.append(text)
        self._logprobs += logprobs
        yield self._about_item("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _open_text(self, item: JsonObject) -> Iterable[JsonObject]:
        """Opens an item of text, unless one of its type is open."""
        if self._open is not None and self._open["type"] == item["type"]:
            return
        yield from self._close()
        self._said, self._logprobs = [], []
        yield self._opened(item)
        yield self._about_item("response.content_part.added", content_index=0, part=self._part())

    def _part(self) -> JsonObject:
        """The one part of the open item, as far as it is."""
        assert self._open is not None, "a part needs an open item"
        text = "".join(self._said)
        if self._open["type"] == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*self._logprobs]}

    def _opened(self, item: JsonObject) -> JsonObject:
        number = self._input_count + len(self.response["output"])
        self._open = {"id": item_id(self.response["id"], number, item["type"]), "status": "in_progress", **item}
        return self._event("response.output_item.added", output_index=len(self.response["output"]), item=self._open)

    def _close(self, *, arguments: str = "", cut: bool = False) -> Iterable[JsonObject]:
        """Ends the open item, if there is one; `cut` says that its text ended early."""
        if self._open is None:
            return
        if self._open["type"] == "function_call":
            done: JsonObject = {"arguments": arguments}
            yield self._about_item("response.function_call_arguments.done", name=self._open["name"], arguments=arguments)
        else:
            part = self._part()
            done = {"content": [part]}
            told = {key: part[key] for key in ("text", "logprobs") if key in part}
            yield self._about_item(f"response.{part['type']}.done", content_index=0, **told)
            yield self._about_item("response.content_part.done", content_index=0, part=part)
        item = {**self._open, **done, "status": "incomplete" if cut else "completed"}
        yield self._event("response.output_item.done", output_index=len(self.response["output"]), item=item)
        self.response["output"] = [*self.response["output"], item]
        self._open = None

    def _end(self, finish: str) -> None:
        reason = INCOMPLETE.get(finish)
        self.response |= {
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "completed_at": None if reason else int(time.time()),
            "usage": usage_object(self._usage + self._answer_usage),
        }

    def _about_item(self, kind: str, **fields: object) -> JsonObject:
        assert self._open is not None, f"{kind} needs an open item"
        return self._event(kind, item_id=self._open["id"], output_index=len(self.response["output"]), **fields)

    def _about_response(self, kind: str) -> JsonObject:
        return self._event(kind, response={**self.response})

    def _event(self, kind: str, **fields: object) -> JsonObject:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}


def usage_object(usage: Usage) -> JsonObject:
    """The usage of a response, with its details."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _error_code(error: AgentFluxError) -> str:
    """One of the codes of a failed response; a context that overflowed keeps its own, by which clients compact and retry."""
    if error.code == "context_length_exceeded":
        return error.code
    if error.status == 429:
        return "rate_limit_exceeded"
    return "server_error" if error.status >= 500 else "invalid_prompt"
