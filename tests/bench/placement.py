"""How often adapters are loaded when 14 of them share 4 engines with 4 LoRA slots each, by way of placing the requests.

A discrete simulation of the same Poisson arrivals under each policy; the placement is the one that serves. An engine is a shared
processor: each of its requests gets an equal part of it, and loading an adapter keeps it busy. Prints a table and writes it to
build/bench/placement.json.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from services.shared.clients.placement import Placement

SLOTS = 4
ADAPTERS = 14
ENGINES = [f"http://engine-{number}:8000" for number in range(4)]
REQUESTS = 8000

# Seconds: an engine's work for a request (mean; exponential), and for loading one adapter from the page cache.
WORK_S = 0.2
LOAD_S = 0.1
# Part of all engines' time that the requests alone would fill.
UTILISATION = 0.6

Loads = Mapping[str, int]


@dataclass(frozen=True)
class Arrival:
    """A request: when it comes, what it wants, how much work it is."""

    at: float
    model: str
    conversation: bytes
    work_s: float


@dataclass
class Engine:
    """One engine under processor sharing, with an LRU of adapters."""

    slots: OrderedDict[str, None] = field(default_factory=OrderedDict)
    left: dict[int, float] = field(default_factory=dict)
    """Seconds of work left, by request."""
    time: float = 0.0
    adapter_loads: int = 0
    served: int = 0
    conversations: set[tuple[str, bytes]] = field(default_factory=set)

    def advance(self, now: float) -> list[tuple[float, int]]:
        """Works until `now`; returns the requests that were done on the way, with their times."""
        done = []
        while self.left:
            number, least = min(self.left.items(), key=lambda item: item[1])
            ends = self.time + least * len(self.left)
            if ends > now:
                break
            self._work(least)
            del self.left[number]
            self.time = ends
            done.append((ends, number))
        if self.left:
            self._work((now - self.time) / len(self.left))
        self.time = now
        return done

    def _work(self, seconds: float) -> None:
        for number in self.left:
            self.left[number] -= seconds

    def start(self, number: int, arrival: Arrival) -> bool:
        """Takes a request at its arrival; returns whether it knew the prompt of this conversation."""
        loads = arrival.model not in self.slots
        self.slots[arrival.model] = None
        self.slots.move_to_end(arrival.model)
        if len(self.slots) > SLOTS:
            self.slots.popitem(last=False)
        self.left[number] = arrival.work_s + LOAD_S * loads
        self.adapter_loads += loads
        self.served += 1
        known = (arrival.model, arrival.conversation) in self.conversations
        self.conversations.add((arrival.model, arrival.conversation))
        return known


@dataclass(frozen=True)
class Outcome:
    """What one policy came to. `imbalance`: requests of the busiest engine over the mean; `kv_hits`: part of the turns after a
    conversation's first one with an adapter that found its engine again."""

    policy: str
    adapter_loads: int
    imbalance: float
    kv_hits: float
    p50_s: float
    p99_s: float


def traffic(seed: int, requests: int = REQUESTS, exponent: float = 1.0) -> list[Arrival]:
    """Poisson arrivals of turns of 64 concurrent conversations, their adapters popular as Zipf's law has it."""
    dice = random.Random(seed)
    models = [f"filesystem.tool_{number}--{dice.randbytes(6).hex()}" for number in range(ADAPTERS)]
    weights = [1 / (rank + 1) ** exponent for rank in range(ADAPTERS)]
    conversations = [dice.randbytes(16) for _ in range(64)]
    rate = UTILISATION * len(ENGINES) / WORK_S
    at, arrivals = 0.0, []
    for model in dice.choices(models, weights, k=requests):
        at += dice.expovariate(rate)
        place_in_list = dice.randrange(len(conversations))
        if dice.random() < 0.05:
            conversations[place_in_list] = dice.randbytes(16)
        arrivals.append(Arrival(at, model, conversations[place_in_list], dice.expovariate(1 / WORK_S)))
    return arrivals


def round_robin() -> Callable[[Loads, Arrival], str]:
    """One after the other."""
    turns = itertools.cycle(ENGINES)
    return lambda loads, arrival: next(turns)


def least_loaded() -> Callable[[Loads, Arrival], str]:
    """Whoever has the fewest requests in flight; any of them."""
    dice = random.Random(0)
    return lambda loads, arrival: min(loads, key=lambda engine: (loads[engine], dice.random()))


def ours() -> Callable[[Loads, Arrival], str]:
    """The placement that serves."""
    placement = Placement(ENGINES)
    return lambda loads, arrival: placement.place(loads, arrival.model, arrival.conversation)


POLICIES = {"round robin": round_robin, "least loaded": least_loaded, "placement": ours}


def simulate(policy: str, arrivals: list[Arrival]) -> Outcome:
    """Serves all arrivals under one policy."""
    choose = POLICIES[policy]()
    engines = {name: Engine() for name in ENGINES}
    met: set[tuple[str, bytes]] = set()
    took, hits, later = [], 0, 0

    def advance(now: float) -> None:
        for engine in engines.values():
            took.extend(ends - arrivals[number].at for ends, number in engine.advance(now))

    for number, arrival in enumerate(arrivals):
        advance(arrival.at)
        known = engines[choose({name: len(engine.left) for name, engine in engines.items()}, arrival)].start(number, arrival)
        hits += known
        later += (arrival.model, arrival.conversation) in met
        met.add((arrival.model, arrival.conversation))
    advance(float("inf"))
    served = [engine.served for engine in engines.values()]
    hundredths = statistics.quantiles(took, n=100)
    return Outcome(
        policy,
        adapter_loads=sum(engine.adapter_loads for engine in engines.values()),
        imbalance=max(served) / statistics.mean(served),
        kv_hits=hits / later,
        p50_s=hundredths[49],
        p99_s=hundredths[98],
    )


def main() -> None:
    """Simulates, prints, writes."""
    progress = Progress()
    rows = []
    for seed in range(1, 6):
        arrivals = traffic(seed)
        rows += [{"seed": seed, **asdict(simulate(policy, arrivals))} for policy in POLICIES]
    blind = statistics.mean(row["adapter_loads"] for row in rows if row["policy"] == "round robin")
    for policy in POLICIES:
        of_policy = [row for row in rows if row["policy"] == policy]
        mean = {name: statistics.mean(row[name] for row in of_policy) for name in of_policy[0] if name not in ("seed", "policy")}
        progress.show(
            f"{policy:12} adapter loads {mean['adapter_loads']:6.0f} ({mean['adapter_loads'] / blind - 1:+.0%})   "
            f"imbalance {mean['imbalance']:.2f}   KV hits {mean['kv_hits']:.0%}   "
            f"p50 {mean['p50_s']:.2f} s   p99 {mean['p99_s']:.2f} s"
        )
    target = REPOSITORY / "build" / "bench" / "placement.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
