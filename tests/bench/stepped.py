"""An engine that batches, caches and stalls as vLLM does, without a model: `python -m tests.bench.stepped OPTIONS_AS_JSON`.

It works in steps. A step decodes one token of every running request and reads up to 2,048 unread prompt tokens, so a long prompt
makes its neighbours wait; KV blocks are kept by adapter and prefix; an adapter that is not in a slot is loaded between two steps,
and a call whose caller has hung up leaves after the step. Times are those of the loop it runs in, which may be a virtual one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from tests.shared.clients.fake_engine import FakeEngine, scores_of, texts_of, write

# A 7B model on one data-centre GPU, as SMG's mock worker has it: 8,000 prompt tokens/s, 6 ms a step, 0.35 ms a decoding request.
PREFILL_S, STEP_S, DECODE_S = 1 / 8000, 0.006, 0.00035
# vLLM's defaults for a server: unread tokens of one step, requests of one batch.
BUDGET, MOST_RUNNING = 2048, 256
# Tokens of one KV block here (vLLM: 16), and how many blocks are kept: 260,000 tokens.
BLOCK, BLOCKS = 64, 4096
# LoRA slots: those of a toolset and two more (services/engine/capacity.py). A load takes 0.1 to 1 s, and the whole engine waits.
SLOTS, LOAD_S = 9, 0.3


@dataclass(frozen=True)
class Ills:
    """What is wrong with an engine: it stands still for a while again and again, or does everything `slowness` times slower."""

    pause_every_s: float = 0.0
    pause_s: float = 0.0
    slowness: float = 1.0
    seed: int = 0


@dataclass(eq=False)
class Sequence:
    """One prompt and what follows it."""

    model: str
    blocks: list[int]
    prompt: int
    wanted: int
    priority: tuple[int, int]
    done: asyncio.Future[None]
    read: int = 0
    written: int = 0


@dataclass
class Work:
    """What an engine has done: prompt tokens read, tokens written, adapters loaded."""

    read: int = 0
    written: int = 0
    loads: int = 0


class SteppedEngine:
    """Serves `generate` for as long as `run` runs."""

    def __init__(self, ills: Ills) -> None:
        self.work = Work()
        self._ills = ills
        self._pauses = _pauses(ills)
        self._pause = next(self._pauses)
        self._sequences: list[Sequence] = []
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._slots: OrderedDict[str, None] = OrderedDict()
        self._arrivals = itertools.count()
        self._wanted = asyncio.Event()

    async def generate(self, model: str, prompts: list[list[int]], tokens: int, priority: int) -> None:
        """Returns when all of it would have been written; a cancelled one is given up."""
        loop = asyncio.get_running_loop()
        sequences = [
            Sequence(model, _hashes(model, prompt), len(prompt), tokens, (priority, next(self._arrivals)), loop.create_future())
            for prompt in prompts
        ]
        self._sequences += sequences
        self._wanted.set()
        try:
            for sequence in sequences:
                await sequence.done
        finally:
            self._sequences = [sequence for sequence in self._sequences if sequence not in sequences]

    async def run(self) -> None:
        """Step after step, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._sequences:
                self._wanted.clear()
                await self._wanted.wait()
            ends, reads, writes = self._plan(loop.time())
            await asyncio.sleep(ends - loop.time())
            self._finish(reads, writes)

    def _plan(self, now: float) -> tuple[float, list[tuple[Sequence, int]], list[Sequence]]:
        """The next step: when it ends, which tokens it reads, and who gets one."""
        running = sorted(self._sequences, key=lambda sequence: sequence.priority)[:MOST_RUNNING]
        seconds, left, reads, writes = STEP_S, BUDGET, [], []
        for sequence in running:
            if sequence.written:
                writes.append(sequence)
                continue
            if not sequence.read:
                sequence.read = self._cached(sequence)
            if taken := min(left, sequence.prompt - sequence.read):
                seconds += self._loaded(sequence.model) + taken * PREFILL_S
                left -= taken
                reads.append((sequence, taken))
        seconds += len(writes) * DECODE_S
        return self._stalled(now, seconds * self._ills.slowness), reads, writes

    def _finish(self, reads: list[tuple[Sequence, int]], writes: list[Sequence]) -> None:
        for sequence, taken in reads:
            sequence.read += taken
            self.work.read += taken
            for block in sequence.blocks[: sequence.read // BLOCK]:
                self._blocks[block] = None
                self._blocks.move_to_end(block)
            if sequence.read == sequence.prompt:
                writes.append(sequence)
        while len(self._blocks) > BLOCKS:
            self._blocks.popitem(last=False)
        for sequence in writes:
            sequence.written += 1
            self.work.written += 1
            if sequence.written == sequence.wanted and not sequence.done.done():
                sequence.done.set_result(None)
        self._sequences = [sequence for sequence in self._sequences if not sequence.done.done()]

    def _cached(self, sequence: Sequence) -> int:
        """How many tokens need not be read: not the last block, whose end is what the caller wants to know."""
        known = sum(1 for _ in itertools.takewhile(self._blocks.__contains__, sequence.blocks))
        return min(known * BLOCK, (sequence.prompt - 1) // BLOCK * BLOCK)

    def _loaded(self, model: str) -> float:
        """Seconds until `model` is in a slot."""
        is_there = model in self._slots or model == "base"
        if model != "base":
            self._slots[model] = None
            self._slots.move_to_end(model)
        if len(self._slots) > SLOTS:
            self._slots.popitem(last=False)
        self.work.loads += not is_there
        return 0.0 if is_there else LOAD_S

    def _stalled(self, now: float, seconds: float) -> float:
        """When work of so many seconds is done that begins now: what of a pause falls into it comes on top."""
        ends = now + seconds
        while self._pause[0] < ends:
            begins, lasts = self._pause
            ends += max(0.0, begins + lasts - max(now, begins))
            self._pause = next(self._pauses)
        return ends


def _pauses(ills: Ills) -> Iterator[tuple[float, float]]:
    """When it stands still, and for how long: exponential both."""
    dice, at = random.Random(ills.seed), 0.0
    while ills.pause_every_s:
        at += dice.expovariate(1 / ills.pause_every_s)
        yield at, dice.expovariate(1 / ills.pause_s)
    yield float("inf"), 0.0


def _hashes(model: str, prompt: list[int]) -> list[int]:
    """What stands for each whole block, together with everything before it."""
    tokens, chained, hashes = array("i", prompt), hash(model), []
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        chained = hash((chained, tokens[start : start + BLOCK].tobytes()))
        hashes.append(chained)
    return hashes


class SteppedServer(FakeEngine):
    """The same on vLLM's wire; a caller who hangs up is given up."""

    def __init__(self, ills: Ills) -> None:
        super().__init__(context_length=1_000_000)
        self.engine = SteppedEngine(ills)

    async def _reply(self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models":
            return write(writer, {"data": [{"id": "base", "max_model_len": self.context_length}]})
        if path == "/work":
            return write(writer, vars(self.engine.work))
        is_score = "logprob_token_ids" in body
        prompts = body["prompt"] if is_score else [body["prompt"]]
        answer = asyncio.create_task(self.engine.generate(body["model"], prompts, body["max_tokens"], body["priority"]))
        gone = asyncio.create_task(reader.read(1))
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise ConnectionResetError
        gone.cancel()
        await asyncio.wait({gone})
        write(writer, scores_of(body) if is_score else texts_of(body))


@contextlib.contextmanager
def stepped_process(ills: Ills) -> Iterator[str]:
    """The URL of such an engine in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.stepped", json.dumps(vars(ills))]
    with psutil.Popen(command, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def _main(ills: Ills) -> None:
    server = SteppedServer(ills)
    await server.start()
    print(server.url, flush=True)
    await server.engine.run()


if __name__ == "__main__":
    asyncio.run(_main(Ills(**json.loads(sys.argv[1]))))
