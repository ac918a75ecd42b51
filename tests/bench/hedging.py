"""Whether it would pay to ask a second engine for a slow vote: three engines, with and without, at loads of 20 to 90 %.

The engines are tests/bench/stepped.py, the fleets the ones that serve. The hedging is here and nowhere else, because it does not
pay (services/engine/README.md). A turn is a vote of two calls and the arguments after it. The first table is on virtual time,
where each row has the same arrivals and the same stalls; the second over HTTP, to engines in processes of their own, by turns.
Prints both and writes build/bench/hedging.json.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import selectors
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.shared.clients.engine import EngineClient
from services.shared.clients.engine_metrics import EngineMetrics
from services.shared.clients.engines import EngineFleet
from services.shared.clients.health import REQUESTS_SAVED
from services.shared.clients.http import HttpClient
from services.shared.clients.placement import conversation_of_prompt
from services.shared.clients.replica import Adapters, Replica
from services.shared.contracts.engine import CompletionRequest, Completions, Scores
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage
from tests.bench.stepped import Ills, SteppedEngine, stepped_process

ENGINES = 3
SHARES = (0.0, 0.05)
LOADS = (0.2, 0.5, 0.9)
SEEDS = (1, 2, 3)
TURNS = 1500
# Part of each run that is not counted: caches fill, and the tail gets known.
WARM_UP = 0.1
TIMEOUT_S = 60.0
# So many turns at a time are a full load, whose throughput is what loads are shares of.
FULL = 8 * ENGINES

ILLS = {
    "none": Ills(),
    # An engine stands still for half a second on average (a garbage collection, a neighbour), thrice a minute.
    "stalls": Ills(pause_every_s=20, pause_s=0.5),
    # Rarer, and for two seconds.
    "hangs": Ills(pause_every_s=60, pause_s=2.0),
    # One of the three is a third as fast.
    "slow engine": Ills(),
}

# Seconds of one round over HTTP, and rounds of each kind.
ROUND_S, ROUNDS = 30.0, 4


@dataclass(frozen=True)
class Prompts:
    """Tokens: of the tools, of the conversation when it is met, and added per turn (median)."""

    tools: int
    history: int
    added: int


# All schemas in the prompt, as the base model needs it, and none, as adapters do that know their tools.
PROMPTS = {"full": Prompts(1500, 1500, 200), "compact": Prompts(150, 300, 55)}
TOOLSETS, TOOLS, CONVERSATIONS = 2, 6, 60


@dataclass(frozen=True)
class Turn:
    """When it comes, its prompt, its adapters (no `selector` for a document that is only relayed), tokens of its arguments."""

    at: float
    prompt: list[int]
    selector: str | None
    writer: str
    tokens: int


def traffic(seed: int, rate: float, prompts: Prompts, turns: int) -> list[Turn]:
    """Poisson arrivals of turns of 60 conversations with two toolsets; one in a hundred is a document of 6,000 tokens."""
    dice = random.Random(seed)

    def tokens(count: float) -> list[int]:
        # Anything but the 1 that opens a turn.
        return [2 + token for token in array("H", dice.randbytes(2 * int(count)))]

    def adapter(name: str) -> str:
        return f"{name}--{dice.randbytes(6).hex()}"

    tools = [[1, *tokens(prompts.tools)] for _ in range(TOOLSETS)]
    selectors_ = [adapter(f"set{number}.select") for number in range(TOOLSETS)]
    writers = [[adapter(f"set{number}.tool_{tool}") for tool in range(TOOLS)] for number in range(TOOLSETS)]

    def conversation(history: float) -> tuple[int, list[int]]:
        toolset = int(dice.random() > 0.7)
        return toolset, [*tools[toolset], 1, *tokens(dice.uniform(20, 150) + history), 1, 7]

    conversations = [conversation(dice.uniform(0, prompts.history)) for _ in range(CONVERSATIONS)]
    at, arrivals = 0.0, []
    for _ in range(turns):
        at += dice.expovariate(rate)
        if dice.random() < 0.01:
            arrivals.append(Turn(at, [1, *tokens(6000)], None, "base", 200))
            continue
        number = dice.randrange(CONVERSATIONS)
        if dice.random() < 0.12:
            conversations[number] = conversation(0)
        toolset, prompt = conversations[number]
        (writer,) = dice.choices(writers[toolset], [1 / (rank + 1) for rank in range(TOOLS)])
        arrivals.append(Turn(at, prompt, selectors_[toolset], writer, 1 + int(dice.expovariate(1 / 40))))
        added = min(2000, prompts.added * dice.lognormvariate(0, 0.8))
        conversations[number] = toolset, [*prompt, 1, *tokens(added), 1, 7]
    return arrivals


# --- Hedging ---

# Durations that are remembered, fewest that tell of a tail, and after how many more the tail is looked up again.
REMEMBERED, FEWEST, REFRESH = 512, 128, 32


class HedgedFleet(EngineFleet):
    """Asks a second engine once a score took longer than all but `share` of the last ones, for that share of them at most, and
    only one that has none of our votes; the first answer counts and the slower call is closed.

    Dean and Barroso, The Tail at Scale (2013); one share for delay and budget is Finagle's BackupRequestFilter.
    """

    def __init__(self, replicas: Sequence[Replica], share: float) -> None:
        super().__init__(replicas, EngineMetrics("selector", "base"), timeout_s=TIMEOUT_S, adapters=dict)
        self.outcomes = Counter[str]()
        self._share = share
        self._saved = 0
        self._delay_s: float | None = None
        self._durations = deque[float](maxlen=REMEMBERED)
        self._noted = 0

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        if not self._share:
            return await super().score(model, prompts, token_ids, priority=priority)
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._saved = min(REQUESTS_SAVED, self._saved + 1)
        tries = [asyncio.create_task(super().score(model, prompts, token_ids, priority=priority))]
        try:
            await asyncio.wait(tries, timeout=self._delay_s)
            if not tries[0].done() and (other := self._other(model, prompts[0])) is not None:
                tries.append(asyncio.create_task(self._copied(other, model, prompts, token_ids, priority)))
            done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            if len(tries) > 1:
                self.outcomes["lost" if tries[0] in done else "won"] += 1
            reply = done.pop().result()
            self._note(loop.time() - started)
            return reply
        finally:
            for each in tries:
                each.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    def _other(self, model: str, prompt: list[int]) -> Replica | None:
        idle = {replica.url: replica for replica in self._replicas if not replica.health.inflight}
        if not idle or self._saved < 1 / self._share:
            self.outcomes["refused" if idle else "busy"] += 1
            return None
        self._saved -= round(1 / self._share)
        return idle[self._dispatch._placement.place(dict.fromkeys(idle, 0), model, conversation_of_prompt(prompt))]

    async def _copied(
        self, replica: Replica, model: str, prompts: list[list[int]], token_ids: list[int], priority: int
    ) -> Scores:
        replica.health.inflight += 1
        try:
            return await replica.engine.score(model, prompts, token_ids, priority=priority)
        finally:
            replica.health.inflight -= 1

    def _note(self, seconds: float) -> None:
        # A hedged call took longer than the delay in any case: it stays among the slowest, though its first engine was not
        # heard to the end.
        self._durations.append(seconds)
        self._noted += 1
        if self._noted >= FEWEST and self._noted % REFRESH == 0:
            self._delay_s = sorted(self._durations)[int((1 - self._share) * len(self._durations))]


# --- The same fleets on virtual time ---


class _Jumps(selectors.DefaultSelector):
    """Time passes by being waited for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock goes on to the next timer at once."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


class NearClient(EngineClient):
    """Asks an engine of this process."""

    def __init__(self, engine: SteppedEngine) -> None:
        self._engine = engine

    async def score(self, model: str, prompts: list[list[int]], token_ids: list[int], *, priority: int = 0) -> Scores:
        await self._engine.generate(model, prompts, 1, priority)
        return Scores(logprobs=[], usage=Usage())

    async def complete(self, request: CompletionRequest) -> Completions:
        await self._engine.generate(request.model, [request.prompt], request.max_tokens, request.priority)
        return Completions(choices=[], usage=Usage())


class NearReplica(Replica):
    """An engine of this process, always well."""

    def __init__(self, url: str, engine: SteppedEngine) -> None:
        super().__init__(url, timeout_s=TIMEOUT_S)
        self.engine = NearClient(engine)

    async def watch(self, adapters: Adapters, notice: object) -> None:
        await asyncio.Event().wait()


@dataclass
class Case:
    """One cell of the table."""

    prompts: str
    ills: str
    load: float
    share: float
    seed: int
    capacity: float


@dataclass
class Took:
    """Seconds of the votes and of the whole turns, those that failed, hedges by outcome, and tokens read by all engines."""

    votes: list[float]
    turns: list[float]
    failed: int
    hedges: Counter[str]
    calls: int
    read: int = 0


def engines_of(ills: str, seed: int) -> list[Ills]:
    """What ails each of the three."""
    return [
        replace(ILLS[ills], seed=10 * seed + number, slowness=3.0 if ills == "slow engine" and number == 0 else 1.0)
        for number in range(ENGINES)
    ]


async def take(turns: Iterable[Turn], votes: HedgedFleet, arguments: EngineFleet, *, at_once: int | None = None) -> Took:
    """Takes the turns when they come, or `at_once` at a time."""
    loop = asyncio.get_running_loop()
    took = Took([], [], 0, Counter(), 0)
    begun = loop.time()

    async def one(turn: Turn) -> None:
        started = loop.time()
        named = [*turn.prompt, 5, 6]
        try:
            if turn.selector is not None:
                await votes.score(turn.selector, [turn.prompt], [1], priority=1)
                await votes.score(turn.selector, [named], [1], priority=1)
                took.calls += 2
                took.votes.append(loop.time() - started)
            await arguments.complete(CompletionRequest(model=turn.writer, prompt=named, max_tokens=turn.tokens))
            if turn.selector is not None:
                took.turns.append(loop.time() - started)
        except AgentFluxError:
            took.failed += 1

    async def work(queue: Iterable[Turn]) -> None:
        for turn in queue:
            await one(turn)

    if at_once:
        queue = iter(turns)
        await asyncio.gather(*(work(queue) for _ in range(at_once)))
        return took
    under_way = []
    for turn in turns:
        await asyncio.sleep(begun + turn.at - loop.time())
        under_way.append(asyncio.create_task(one(turn)))
    await asyncio.gather(*under_way)
    took.hedges = votes.outcomes
    return took


async def _near(ills: Sequence[Ills], turns: list[Turn], share: float, at_once: int | None = None) -> tuple[Took, float]:
    engines = [SteppedEngine(each) for each in ills]
    working = [asyncio.create_task(engine.run()) for engine in engines]
    # Each role has its own view of the engines, as services have.
    mine, others = (
        [NearReplica(f"http://engine-{number}:8000", engine) for number, engine in enumerate(engines)] for _ in range(2)
    )
    votes = HedgedFleet(mine, share)
    arguments = EngineFleet(others, EngineMetrics("arguments", "base"), timeout_s=TIMEOUT_S, adapters=dict)
    took = await take(turns, votes, arguments, at_once=at_once)
    lasted = asyncio.get_running_loop().time()
    took.read = sum(engine.work.read for engine in engines)
    for task in working:
        task.cancel()
    await votes.aclose()
    await arguments.aclose()
    return took, lasted


def simulated(ills: Sequence[Ills], turns: list[Turn], share: float, at_once: int | None = None) -> tuple[Took, float]:
    """What the turns took, and the virtual seconds of it all."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_near(ills, turns, share, at_once))


def capacity(prompts: str) -> float:
    """Turns per second of well engines that always have enough to do."""
    _, lasted = simulated(engines_of("none", 0), traffic(0, 1, PROMPTS[prompts], TURNS), 0.0, at_once=FULL)
    return TURNS / lasted


def cell(case: Case) -> Took:
    """Simulates one cell."""
    turns = traffic(case.seed, case.load * case.capacity, PROMPTS[case.prompts], TURNS)
    return simulated(engines_of(case.ills, case.seed), turns, case.share)[0]


# --- Over HTTP ---


async def _over_http(urls: list[str], rate: float, prompts: Prompts) -> dict[float, Took]:
    arguments = EngineFleet.connect(",".join(urls), timeout_s=TIMEOUT_S, role="arguments", base_model="base")
    fleets = {share: HedgedFleet([Replica(url, timeout_s=TIMEOUT_S) for url in urls], share) for share in SHARES}
    sums = {share: Took([], [], 0, Counter(), 0) for share in SHARES}
    for number in range(ROUNDS):
        # Whoever is first finds the engines as the other one left them, so both are first equally often.
        for share in SHARES if number % 2 else reversed(SHARES):
            # The same turns of conversations that the engines have not read for the other one.
            turns = _reworded(traffic(100 + number, rate, prompts, int(rate * ROUND_S)), 70_000 * SHARES.index(share))
            before = await _read(urls)
            took = await take(turns, fleets[share], arguments)
            total = sums[share]
            total.votes += took.votes
            total.turns += took.turns
            total.failed += took.failed
            total.calls += took.calls
            total.hedges = took.hedges
            total.read += await _read(urls) - before
    for fleet in (arguments, *fleets.values()):
        await fleet.aclose()
    return sums


def _reworded(turns: Iterable[Turn], by: int) -> list[Turn]:
    return [replace(turn, prompt=[token if token == 1 else token + by for token in turn.prompt]) for turn in turns]


async def _read(urls: list[str]) -> int:
    """Prompt tokens that all engines have read so far."""
    total = 0
    for url in urls:
        http = HttpClient(url, service="engine", timeout_s=10)
        total += (await http.get("/work"))["read"]
        await http.aclose()
    return total


def over_http(rate: float) -> dict[float, Took]:
    """Compact prompts, engines that stall: without and with hedging in turn, on the same engines."""
    with ExitStack() as stack:
        urls = [stack.enter_context(stepped_process(ills)) for ills in engines_of("stalls", 1)]
        return asyncio.run(_over_http(urls, rate, PROMPTS["compact"]))


# --- Tables ---


def row(took: Sequence[Took], **what: object) -> JsonObject:
    """One line: quantiles in ms, of all runs together."""
    line: JsonObject = dict(what)
    for name, runs in (("vote", [each.votes for each in took]), ("turn", [each.turns for each in took])):
        ordered = sorted(second for run in runs for second in run[int(WARM_UP * len(run)) :])
        line[f"{name}s"] = len(ordered)
        for quantile in (0.5, 0.95, 0.99, 0.999):
            line[f"{name}_p{str(quantile)[2:].ljust(2, '0')}_ms"] = 1e3 * ordered[int(quantile * len(ordered))]
    outcomes = {name: sum(t.hedges.get(name, 0) for t in took) for name in ("won", "lost", "refused", "busy")}
    sent_twice = outcomes["won"] + outcomes["lost"]
    line |= {"hedged": sent_twice / sum(t.calls for t in took), **outcomes, "failed": sum(t.failed for t in took)}
    return line | {"tokens_read": sum(t.read for t in took)}


def show(progress: Progress, line: JsonObject, plain: JsonObject) -> None:
    """A row, beside the one without hedging."""

    def compared(name: str) -> str:
        return f"{line[name]:6.0f} ({line[name] / plain[name] - 1:+4.0%})"

    what = f"{line['prompts']:8}{line['ills']:12}{line['load']:4.0%} {line['share']:3.0%}"
    votes = " ".join(f"{at} {compared(f'vote_{at}_ms')}" for at in ("p50", "p95", "p99", "p999"))
    turns = " ".join(f"{at} {compared(f'turn_{at}_ms')}" for at in ("p50", "p95", "p99"))
    read = f"{line['tokens_read'] / plain['tokens_read'] - 1:+.1%}"
    progress.show(
        f"{what} hedged {line['hedged']:4.1%} won {line['won']:4} vote {votes} turn {turns} read {read} failed {line['failed']}"
    )


def main() -> None:
    """Measures, prints, writes."""
    progress, rows = Progress(), []
    with ProcessPoolExecutor(2) as pool:
        capacities = dict(zip(PROMPTS, pool.map(capacity, PROMPTS), strict=True))
        progress.show("full load, turns per second: " + ", ".join(f"{name} {rate:.1f}" for name, rate in capacities.items()))
        cells = list(itertools.product(PROMPTS, ILLS, LOADS, SHARES))
        cases = [Case(*what, seed, capacities[what[0]]) for what in cells for seed in SEEDS]
        results = pool.map(cell, cases)
        for prompts, ills, load, share in cells:
            took = [next(results) for _ in SEEDS]
            rows.append(row(took, where="virtual", prompts=prompts, ills=ills, load=load, share=share))
            show(progress, rows[-1], rows[-1 - SHARES.index(share)])
    progress.show("over HTTP")
    started = time.monotonic()
    by_share = over_http(0.5 * capacities["compact"])
    for share, one in by_share.items():
        rows.append(row([one], where="http", prompts="compact", ills="stalls", load=0.5, share=share))
        show(progress, rows[-1], row([by_share[0.0]]))
    progress.show(f"{time.monotonic() - started:.0f} s")
    target = REPOSITORY / "build" / "bench" / "hedging.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
