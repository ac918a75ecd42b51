"""A stand-in for vLLM that does what the user says, over vLLM's own wire: for tests of the whole way a request takes.

The user's last message says which tools are called, one after the other: `call get_weather, get_time` (nothing else: an answer
in text). It knows its prompts as vLLM does, by token ids, so selector and argument service in front of it are the real ones.
Arguments are the smallest value of the schema; answers repeat what was said, or the last tool's result.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from tokenizers import Tokenizer

from services.shared.contracts.selection import ANSWER_LABEL

WORDS = re.compile(r"\s*\S+|\s+$")
CALLS = re.compile(r"\bcall ((?:[\w.\-]+)(?:, ?[\w.\-]+)*)")


class TalkingEngine:
    """Serves `base`. `delay_s` before every reply, `word_s` before every streamed word; `open` are requests under way."""

    def __init__(self, model_dir: Path, *, delay_s: float = 0.0, word_s: float = 0.0) -> None:
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.delay_s, self.word_s = delay_s, word_s
        self.bodies: list[dict[str, Any]] = []
        self.traceparents: list[str] = []
        self.open = 0
        self.app = FastAPI()
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/completions")(self.completions)
        self.app.post("/v1/chat/completions")(self.chat)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "base", "object": "model", "max_model_len": 8192}]}

    async def completions(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.bodies.append(body)
        self.traceparents.append(request.headers.get("traceparent", ""))
        async with self._working():
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            texts = [self.tokenizer.decode(prompt, skip_special_tokens=False) for prompt in prompts]
            rows = [self._row(index, text, body) for index, text in enumerate(texts) for _ in range(body.get("n") or 1)]
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": len(rows)}
        return JSONResponse({"object": "text_completion", "choices": rows, "usage": usage})

    def _row(self, index: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        if tokens := body.get("logprob_token_ids"):
            wished, begun = self._wished(prompt), prompt.rpartition('{"name": "')[2]
            scores = {f"token_id:{token}": self._score(wished, begun + self.tokenizer.decode([token])) for token in tokens}
            return {"index": index, "logprobs": {"top_logprobs": [scores]}, "finish_reason": "length", "text": ""}
        schema = (body.get("structured_outputs") or {}).get("json") or {"type": "object"}
        return {"index": index, "text": json.dumps(smallest(schema), separators=(",", ":")), "finish_reason": "stop"}

    def _wished(self, prompt: str) -> str:
        """The name that comes next: the user's list, without what was called since."""
        # Templates show tool results as what a user says.
        starts = [match.end() for match in re.finditer(r"<\|im_start\|>user\n(?!<tool_response>)", prompt)]
        said, _, since = prompt[starts[-1] if starts else 0 :].partition("<|im_end|>")
        found = CALLS.search(said)
        names = found.group(1).replace(" ", "").split(",") if found else []
        made = since.count("<tool_call>") - 1
        return names[made] if made < len(names) else ANSWER_LABEL

    @staticmethod
    def _score(wished: str, spelled: str) -> float:
        whole = f'{wished}", "'
        return -0.01 if whole.startswith(spelled) or spelled.startswith(f'{wished}"') else -12.0

    async def chat(self, request: Request) -> Any:
        body = await request.json()
        self.bodies.append(body)
        self.traceparents.append(request.headers.get("traceparent", ""))
        if body.get("stream"):
            return StreamingResponse(self._stream(body), media_type="text/event-stream")
        async with self._working():
            choices, words = [], []
            for index in range(body.get("n") or 1):
                text, finish = self._answer(body)
                words += WORDS.findall(text)
                message = {"role": "assistant", "content": text, "tool_calls": [], "reasoning": None}
                choices.append({"index": index, "message": message, "logprobs": _logprobs(body, [text]), "finish_reason": finish})
        return JSONResponse({"id": "chatcmpl-engine", "object": "chat.completion", "choices": choices, "usage": _usage(words)})

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        async with self._working():
            text, finish = self._answer(body)
            pieces = WORDS.findall(text)
            opening: dict[str, Any] = {"role": "assistant", "content": ""}
            for delta in (opening, *({"content": piece} for piece in pieces)):
                logprobs = _logprobs(body, [delta["content"]]) if delta is not opening else None
                choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
                yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
                await asyncio.sleep(self.word_s)
            end = {"index": 0, "delta": {}, "finish_reason": finish}
            yield f"data: {json.dumps({'choices': [end]})}\n\n"
            yield f"data: {json.dumps({'choices': [], 'usage': _usage(pieces)})}\n\ndata: [DONE]\n\n"

    @staticmethod
    def _answer(body: dict[str, Any]) -> tuple[str, str]:
        form = body.get("response_format") or {}
        if form.get("type") == "json_schema":
            return json.dumps(smallest(form["json_schema"]["schema"])), "stop"
        if form.get("type") == "json_object":
            return json.dumps({"answer": "yes"}), "stop"
        last = body["messages"][-1]
        text = f"The result is {last['content']}" if last["role"] == "tool" else f"You said: {last['content']}"
        stops = body.get("stop") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.partition(stop)[0]
        words = text.split(" ")
        most = body.get("max_tokens") or 10_000
        return " ".join(words[:most]), "length" if len(words) > most else "stop"

    def _working(self) -> _Working:
        return _Working(self)


class _Working:
    """Counts a request for as long as it runs, also when its client leaves."""

    def __init__(self, engine: TalkingEngine) -> None:
        self.engine = engine

    async def __aenter__(self) -> None:
        self.engine.open += 1
        try:
            await asyncio.sleep(self.engine.delay_s)
        except BaseException:
            self.engine.open -= 1
            raise

    async def __aexit__(self, *error: object) -> None:
        self.engine.open -= 1


def smallest(schema: dict[str, Any]) -> Any:
    """A small value of a schema."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return smallest(schema[union][0])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "string":
            return "Paris"[: schema.get("maxLength", 5)]
        case "integer":
            return schema.get("minimum", 3)
        case "number":
            return schema.get("minimum", 1.5)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [smallest(schema.get("items") or {"type": "string"})] * max(1, schema.get("minItems", 1))
        case _:
            wanted = schema.get("required", [])
            return {name: smallest(part) for name, part in (schema.get("properties") or {}).items() if name in wanted}


def _logprobs(body: dict[str, Any], texts: list[str]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    return {"content": [{"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": []} for text in texts]}


def _usage(parts: list[Any]) -> dict[str, Any]:
    return {"prompt_tokens": 11, "completion_tokens": len(parts), "total_tokens": 11 + len(parts)}
