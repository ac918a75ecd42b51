"""A stand-in for vLLM that speaks its wire: models, scores and constrained text; adapters come from a real store."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.errors import AdapterRefused


class WireEngine:
    """Serves `base`, and every adapter of `store` by name. Each request takes up to `delay_s`."""

    def __init__(self, store: Path, *, delay_s: float = 0.01) -> None:
        self.store = AdapterStore(store)
        self.delay_s = delay_s
        self.asked: Counter[str] = Counter()
        self.app = FastAPI()
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/completions")(self.completions)

    async def models(self) -> dict[str, Any]:
        return {"data": [{"id": "base", "max_model_len": 8192}]}

    async def completions(self, request: Request) -> JSONResponse:
        body = await request.json()
        model = body["model"]
        self.asked[model] += 1
        if model != "base":
            try:
                await asyncio.to_thread(self.store.verify, model)
            except AdapterRefused as error:
                return JSONResponse({"error": {"message": error.message, "code": 400}}, 400)
        await asyncio.sleep(random.random() * self.delay_s)
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        rows = [self._choice(index, body) for index in range(len(prompts) * body.get("n", 1))]
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": len(rows), "total_tokens": 0}
        return JSONResponse({"choices": rows, "usage": usage})

    def _choice(self, index: int, body: dict[str, Any]) -> dict[str, Any]:
        if tokens := body.get("logprob_token_ids"):
            return {"index": index, "logprobs": {"top_logprobs": [{f"token_id:{token}": -2.0 for token in tokens}]}}
        return {"index": index, "text": '{"path":"a.txt"}', "finish_reason": "stop"}
