"""The stream normaliser: whatever an engine's deltas look like, what leaves here is what clients of OpenAI's wire rely on.

Per choice: the role once and first, one finish reason and nothing after it. Per tool call of a choice:

    unseen ──name──▶ open ──argument bytes──▶ open ──next call or finish──▶ closed

Its id and name go out exactly once, together and first, under an index of its own; its argument bytes go out untouched, and a
call that finishes without any gets `{}`. Each of these rules has engines that break it and clients that break without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from services.gateway.loops import new_call_id
from services.shared.contracts.errors import UpstreamError
from services.shared.contracts.tools import JsonObject

_TEXTS = ("content", "refusal", "reasoning_content")


class _Call:
    """One tool call on its way out."""

    def __init__(self, index: int, upstream_id: str | None) -> None:
        self.index = index
        self.upstream_id = upstream_id
        self.id = upstream_id or new_call_id()
        self.name = ""
        # What came before the name did.
        self.held = ""
        self._arguments: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    def opening(self) -> JsonObject:
        return {"index": self.index, "id": self.id, "type": "function", "function": {"name": self.name, "arguments": ""}}

    def take(self, text: str) -> Iterator[JsonObject]:
        if not self.name:
            self.held += text
        elif text:
            self._arguments.append(text)
            yield {"index": self.index, "function": {"arguments": text}}

    def whole(self) -> JsonObject:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Choice:
    """One choice of a reply, delta by delta; `message`, `logprobs` and `finish_reason` are what its deltas add up to."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self.logprobs: JsonObject | None = None
        # In pieces: adding to a text copies it, each time more.
        self._texts: dict[str, list[str]] = {}
        self._calls: list[_Call] = []
        # The call that an upstream index stands for at the moment: some count every parallel call as number 0.
        self._at: dict[int, _Call] = {}
        self._opened = False

    @property
    def message(self) -> JsonObject:
        """The whole message."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        message: JsonObject = {"role": "assistant", "content": None, "refusal": None, **texts}
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        return message

    def take(self, raw: JsonObject) -> Iterable[JsonObject]:
        """The choices of clean chunks for one `raw` choice (`delta`, `logprobs`, `finish_reason`), in order.

        Raises:
            UpstreamError: the engine went on after its finish reason, gave up, or called a tool without naming it.
        """
        # Nearly every delta is one piece of text in the middle of an answer, and clean as it is.
        if self._opened and self.finish_reason is None and raw.get("finish_reason") is None and raw.get("logprobs") is None:
            delta = raw.get("delta")
            if delta and len(delta) == 1 and (text := delta.get("content")) and isinstance(text, str):
                self._texts.setdefault("content", []).append(text)
                return ({"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None},)
        return self.take_any(raw)

    def take_any(self, raw: JsonObject) -> Iterator[JsonObject]:
        """As `take`, which knows a shorter way for what is frequent."""
        delta, finish, logprobs = raw.get("delta") or {}, raw.get("finish_reason"), raw.get("logprobs")
        texts = _texts_of(delta)
        entries = [entry for entry in delta.get("tool_calls") or [] if isinstance(entry, dict)]
        if self.finish_reason is not None:
            if any(texts.values()) or entries:
                raise UpstreamError("the engine went on with an answer that it had finished")
            return
        if logprobs:
            self._add_logprobs(logprobs)
        pieces = [{"content": None, "tool_calls": [piece]} for entry in entries for piece in self._take_call(entry)]
        if any(text or not self._opened for text in texts.values()) or (delta and not self._opened and not pieces):
            for name, text in texts.items():
                self._texts.setdefault(name, []).append(text)
            yield self._delta(texts, logprobs)
            logprobs = None
        for piece in pieces:
            yield self._delta(piece if not self._opened else {"tool_calls": piece["tool_calls"]})
        if finish is not None:
            yield from self._end(str(finish), logprobs)
        elif logprobs:
            yield self._delta({}, logprobs)

    def _take_call(self, entry: JsonObject) -> Iterator[JsonObject]:
        call = self._call_of(entry)
        function: JsonObject = entry["function"] if isinstance(entry.get("function"), dict) else {}
        if not call.name and (name := function.get("name")):
            call.name = str(name)
            yield call.opening()
            yield from call.take(call.held)
        yield from call.take(_argument_text(function.get("arguments")))

    def _call_of(self, entry: JsonObject) -> _Call:
        given, upstream_id = entry.get("index"), entry.get("id") or None
        place = given if isinstance(given, int) else max(self._at, default=0)
        call = self._at.get(place)
        if call is None or (upstream_id and call.upstream_id and upstream_id != call.upstream_id):
            call = self._at[place] = _Call(len(self._calls), str(upstream_id) if upstream_id else None)
            self._calls.append(call)
        return call

    def _end(self, finish: str, logprobs: JsonObject | None) -> Iterator[JsonObject]:
        if finish in ("abort", "error"):
            raise UpstreamError(f"the engine ended its answer with {finish!r}")
        for call in self._calls:
            if not call.name:
                raise UpstreamError("the engine called a tool without naming it")
            # Text that a limit has cut is left as it is.
            if not call.arguments and finish != "length":
                for piece in call.take("{}"):
                    yield self._delta({"tool_calls": [piece]})
        if finish not in ("length", "content_filter"):
            finish = "tool_calls" if self._calls else "stop"
        self.finish_reason = finish
        yield self._delta({}, logprobs, finish=finish)

    def _delta(self, delta: JsonObject, logprobs: JsonObject | None = None, *, finish: str | None = None) -> JsonObject:
        if not self._opened:
            delta = {"role": "assistant", **delta}
            self._opened = True
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _add_logprobs(self, logprobs: JsonObject) -> None:
        if self.logprobs is None:
            self.logprobs = {"content": None, "refusal": None}
        for part in ("content", "refusal"):
            if logprobs.get(part):
                self.logprobs[part] = [*(self.logprobs[part] or []), *logprobs[part]]


def _texts_of(delta: JsonObject) -> dict[str, str]:
    """OpenAI's fields only; the engine's `reasoning` under the name that clients read."""
    found = {name: delta[name] for name in _TEXTS if isinstance(delta.get(name), str)}
    if "reasoning_content" not in found and isinstance(delta.get("reasoning"), str):
        found["reasoning_content"] = delta["reasoning"]
    return found


def _argument_text(arguments: Any) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments, ensure_ascii=False)
