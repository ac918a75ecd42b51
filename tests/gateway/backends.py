"""What stands behind a whole gateway in tests: one HTTP application that plays engine, selector, arguments and call cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from tests.shared.serving import served

TOOLS = {
    name: [
        {
            "type": "function",
            "function": {
                "name": f"{name}_read",
                "parameters": {"type": "object", "properties": {f"{name}_path": {"type": "string"}}},
            },
        }
    ]
    for name in ("files", "mail")
}
HELLO = {"model": "base", "messages": [{"role": "user", "content": "Say something short."}]}
WORDS = [f"word{number} " for number in range(20)]


class Backends:
    """Answers after `delay_s`, and streams `WORDS` with `gap_s` between them. `asked` counts what arrived, by path."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.gap_s = 0.0
        self.fails: set[str] = set()
        self.asked: dict[str, int] = {}
        self.app = FastAPI()
        self.app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])(self.answer)

    async def answer(self, path: str, request: Request) -> Response:
        self.asked[path] = self.asked.get(path, 0) + 1
        if path in self.fails:
            return JSONResponse({"error": {"message": "it is broken", "code": "internal_error"}}, 500)
        match path:
            case "v1/models":
                return JSONResponse({"data": [{"id": "base", "max_model_len": 8192}]})
            case "v1/select":
                return await self._select(await request.json())
            case "v1/arguments":
                usage = {"prompt_tokens": 110, "completion_tokens": 9}
                return JSONResponse({"arguments": "{}", "attempts": 1, "adapter": "base", "usage": usage})
            case "v1/chat/completions":
                return await self._chat(await request.json())
            case _:
                return JSONResponse({"status": "ok", "standings": []})

    async def _select(self, body: dict[str, Any]) -> Response:
        await asyncio.sleep(self.delay_s)
        tool = body["tools"][0]["name"]
        usage = {"prompt_tokens": 100, "completion_tokens": 1}
        told = {"probabilities": {tool: 1.0}, "margin": 1.0, "valid_mass": 1.0, "strategy": "exact", "adapter": "base"}
        return JSONResponse({"tool": tool, **told, "usage": usage})

    async def _chat(self, body: dict[str, Any]) -> Response:
        usage = {"prompt_tokens": 30, "completion_tokens": 20}
        if body["stream"]:
            return StreamingResponse(self._chunks(usage), media_type="text/event-stream")
        await asyncio.sleep(self.delay_s)
        message = {"role": "assistant", "content": "It is done."}
        return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

    async def _chunks(self, usage: dict[str, int]) -> AsyncIterator[str]:
        for word in WORDS:
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}, 'finish_reason': None}]})}\n\n"
            await asyncio.sleep(self.gap_s)
        yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


def write_toolsets(folder: Path, *names: str) -> Path:
    """A folder of toolsets, as `toolsets_dir` names it."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        put(folder / name / "tools.json", json.dumps(TOOLS[name]))
    folder.mkdir(exist_ok=True)
    return folder


def put(file: Path, text: str) -> None:
    """Writes a file under a running gateway's eyes: it sees the old one, or the whole new one."""
    draft = file.with_name(f".{file.name}")
    draft.write_text(text)
    draft.replace(file)


def urls(url: str) -> dict[str, Any]:
    """Settings with which a gateway finds the backends at `url`."""
    return {"engine_url": url, "selector_url": url, "arguments_url": url, "callcache_url": url}


@asynccontextmanager
async def whole_gateway(backends: Backends | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real gateway over HTTP, in front of `backends`."""
    async with served((backends or Backends()).app) as url:
        app = create_app(GatewaySettings(**{"toolsets_dir": Path("nowhere"), **urls(url), **settings}))
        async with served(app) as gateway, httpx.AsyncClient(base_url=gateway, timeout=20) as client:
            yield client


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The value of one series, 0 where there is none yet."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)
