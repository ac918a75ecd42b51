"""Compaction of the Responses API: a conversation becomes what its user said and one item that stands for all the rest.

Source: OpenAI's API reference, "Compact a response", and the input item `compaction_trigger`. The summary is the base model's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from services.gateway.events import Event
from services.gateway.wire.requests import ChatRequest, ToolChoice
from services.gateway.wire.responses_items import compaction, open_calls, with_ids
from services.gateway.wire.responses_replies import ResponseReply
from services.gateway.wire.responses_requests import ResponsesRequest
from services.shared.contracts.tools import JsonObject

WISH = (
    "Summarise this conversation for whoever goes on with it: what was asked for, what was done and found out, and what is left "
    "to do. Keep names, paths and numbers."
)


def is_triggered(given: Any) -> bool:
    """Whether a request's `input` asks for a compaction of what comes before its last item."""
    return (
        isinstance(given, list) and bool(given) and isinstance(given[-1], dict) and given[-1].get("type") == "compaction_trigger"
    )


def asking(request: ChatRequest, *, max_tokens: int) -> ChatRequest:
    """The request for the summary of a conversation, which has at most `max_tokens`."""
    return replace(
        request,
        messages=[*request.messages, {"role": "user", "content": WISH}],
        choice=ToolChoice(may_call=False),
        stream=False,
        max_tokens=max_tokens,
        relayed={"max_tokens": max_tokens},
    )


class CompactionReply(ResponseReply):
    """The reply whose one item is a compaction; the model's text is its summary, and not shown on the way.

    Calls whose results are still to come are in the item, too: a client may compact while its tools run.
    """

    def __init__(self, request: ResponsesRequest, response_id: str) -> None:
        super().__init__(request, response_id)
        self._calls = open_calls([*request.history.items, *request.input])

    def events(self, event: Event) -> Iterable[JsonObject]:
        """Nothing, however much happens."""
        before = self._sequence
        for _ in super().events(event):
            pass
        self._sequence = before
        return ()

    def closing(self) -> Iterable[JsonObject]:
        """The item; afterwards `response` is complete, also where the summary was cut at its limit."""
        before = self._sequence
        for _ in super().closing():
            pass
        self._sequence = before
        written = [item for item in self.response["output"] if item["type"] == "message"]
        summary = compaction("".join(part["text"] for item in written for part in item["content"]), self._calls)
        [item] = with_ids([summary], self.response["id"])
        self.response |= {"status": "completed", "incomplete_details": None, "completed_at": int(time.time()), "output": [item]}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.output_item.done", output_index=0, item=item)


def compacted(items: Sequence[JsonObject], response: JsonObject) -> JsonObject:
    """The compaction of these `items` as an object of its own; `response` is that of a `CompactionReply`."""
    said = [item for item in items if item["type"] == "message" and item["role"] == "user"]
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": response["created_at"],
        "output": [*with_ids(said, response["id"]), *response["output"]],
        "usage": response["usage"],
    }
