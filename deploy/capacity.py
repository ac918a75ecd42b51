"""How many decisions a second a running deployment makes, and how long each takes, by the number of clients at once.

`python -m deploy.capacity --url http://127.0.0.1:8030/v1 --model filesystem` asks as agents do: the tools are always the same,
the conversation never is. It loads whatever answers there. The API key comes from OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

# More than a turn may take inside.
TIMEOUT_S = 650.0
# Words of a conversation, so that a prompt has about as many tokens as asked for.
_WORDS = ("Our", "notes", "of", "the", "week", "say", "that", "a", "report", "was", "written", "and", "read", "again", ".")


@dataclass(frozen=True)
class Step:
    """One number of clients: seconds of each decision that was made, how many failed, and in what time altogether."""

    clients: int
    took_s: list[float]
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Decisions made per second."""
        return len(self.took_s) / self.seconds

    def row(self) -> str:
        """A line of the table."""
        if not self.took_s:
            return f"{self.clients:7} {0:12.2f} {'–':>9} {'–':>9} {self.failed:7}"
        p95 = statistics.quantiles(self.took_s, n=20, method="inclusive")[-1] if len(self.took_s) > 1 else self.took_s[0]
        return f"{self.clients:7} {self.per_second:12.2f} {statistics.median(self.took_s):9.2f} {p95:9.2f} {self.failed:7}"


def turn(model: str, prompt_words: int) -> dict[str, Any]:
    """A request that ends in one tool call. Nothing of its conversation was seen before."""
    words = " ".join(_WORDS[i % len(_WORDS)] for i in range(prompt_words))
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": f"Conversation {uuid.uuid4().hex}. {words}"},
            {"role": "user", "content": "Read the file README.txt"},
        ],
        "tool_choice": "required",
        "max_tokens": 256,
    }


async def measure(http: httpx.AsyncClient, model: str, *, clients: int, seconds: float, prompt_words: int = 0) -> Step:
    """`clients` ask again as soon as they are answered, for `seconds`; what is under way then is waited for, and counts."""
    took: list[float] = []
    failed = 0
    began = time.monotonic()

    async def client() -> None:
        nonlocal failed
        while time.monotonic() - began < seconds:
            started = time.monotonic()
            try:
                reply = await http.post("chat/completions", json=turn(model, prompt_words))
                decided = reply.is_success and reply.json()["choices"][0]["finish_reason"] == "tool_calls"
            except httpx.TransportError:
                decided = False
            if decided:
                took.append(time.monotonic() - started)
            else:
                failed += 1
                # Who is refused does not ask again at once.
                await asyncio.sleep(0.5)

    await asyncio.gather(*(client() for _ in range(clients)))
    return Step(clients, took, failed, time.monotonic() - began)


async def run(url: str, model: str, *, clients: list[int], seconds: float, prompt_words: int) -> None:
    """Measures each number of clients in turn and prints the table."""
    headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'any')}"}
    limits = httpx.Limits(max_connections=max(clients))
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits) as http:
        try:
            first = await http.post("chat/completions", json=turn(model, prompt_words))
        except httpx.TransportError as error:
            raise SystemExit(f"capacity: nobody answers at {url}: {error}") from None
        if not first.is_success:
            raise SystemExit(f"capacity: {url} says {first.status_code}: {first.text[:500]}")
        print("clients  decisions/s  median s     p95 s  failed")
        for each in clients:
            print((await measure(http, model, clients=each, seconds=seconds, prompt_words=prompt_words)).row(), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8030/v1", help="the gateway (default: %(default)s)")
    parser.add_argument("--model", default="filesystem", help="a toolset, whose tools are offered (default: %(default)s)")
    parser.add_argument("--clients", default="1,2,4,8,16,32", help="how many ask at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each (default: %(default)s)")
    parser.add_argument("--prompt-words", type=int, default=0, help="words of each conversation beside the tools (default: 0)")
    given = parser.parse_args(arguments)
    try:
        clients = [int(each) for each in given.clients.split(",")]
    except ValueError:
        parser.error(f"--clients {given.clients} is no list of numbers such as 1,4,16")
    if min(clients) < 1 or given.seconds <= 0 or given.prompt_words < 0:
        parser.error("--clients and --seconds are above 0, --prompt-words is not below")
    asyncio.run(run(given.url, given.model, clients=clients, seconds=given.seconds, prompt_words=given.prompt_words))


if __name__ == "__main__":
    main()
