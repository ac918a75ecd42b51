"""An OpenAI-compatible endpoint on a real socket that answers the same to the same, and misbehaves as a seed says."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from services.shared.contracts.tools import JsonObject, sha256_of

# Shares of all requests; the rest is answered.
FAULTS = {"500": 0.20, "garbage": 0.05, "hang": 0.05, "429": 0.05, "close": 0.05}


@dataclass
class HostileTeacher:
    """`answered` counts well-formed replies by request; after `dies_after` of them every connection is closed."""

    seed: int = 0
    faults: dict[str, float] = field(default_factory=dict)
    dies_after: int | None = None
    retry_after: str = "0.001"
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[HostileTeacher]:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._over.set()
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = json.loads(await reader.readexactly(int(self.headers["content-length"])))
        except (asyncio.IncompleteReadError, ConnectionError):
            # Whoever stops asks no further, also in the middle of a question.
            writer.close()
            return
        key = sha256_of(body)
        fault = self._fault(key)
        self.asked[key] += 1
        self.seen[fault] += 1
        if fault == "hang":
            await self._over.wait()
        elif fault == "endless":
            writer.write(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")
            with suppress(ConnectionError):
                while not self._over.is_set():
                    writer.write(b" " * 2**20)
                    await writer.drain()
        elif fault != "close":
            self.answered[key] += fault == ""
            writer.write(self._reply(body, fault))
        writer.close()

    def _reply(self, body: JsonObject, fault: str) -> bytes:
        status, more = (int(fault), f"retry-after: {self.retry_after}\r\n") if fault.isdigit() else (200, "")
        reply = {"choices": [{"message": said(body)}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
        text = b'{"choices": [{"mess' if fault == "garbage" else json.dumps(reply).encode()
        return f"HTTP/1.1 {status} X\r\n{more}content-length: {len(text)}\r\nconnection: close\r\n\r\n".encode() + text

    def _fault(self, key: str) -> str:
        if self.dies_after is not None and self.answered.total() >= self.dies_after:
            return "close"
        dice = random.Random(f"{self.seed}/{key}/{self.asked[key]}")
        names = [*self.faults, ""]
        return dice.choices(names, [*self.faults.values(), 1 - sum(self.faults.values())])[0]


def said(body: JsonObject) -> JsonObject:
    """Queries when it is asked for some, a call after a question, an answer after a result."""
    last = body["messages"][-1]
    if "tools" not in body:
        mark = sha256_of(body)[:6]
        # One of them comes in every batch.
        queries = ["Thanks!", *(f"List my notes, number {mark}{i}" for i in range(3))]
        return {"role": "assistant", "content": "Sure:\n```json\n" + json.dumps({"queries": queries}) + "\n```"}
    if last["role"] == "user" and last["content"] != "Thanks!":
        function = {"name": "list_notes", "arguments": "{}"}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "type": "function", "function": function}]}
    return {"role": "assistant", "content": "There."}
