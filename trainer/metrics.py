"""What a training tells Prometheus while it runs, and what it leaves in the adapter store for afterwards.

A page ends with its process. So when a training began and how it ended is a file of the store (`<toolset>.training.json`), which
the services that follow the store show as agentflux_train_last_timestamp_seconds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
from prometheus_client import Counter, Gauge

from services.shared.chassis.telemetry import LabelSet, new_registry
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.errors import AgentFluxError
from trainer.progress import Bar, Tick, TimeLeft
from trainer.publish import GateRefused

# Adapters of one training that get series of their own: one a tool, at most.
MOST_ADAPTERS = 130


class TrainMetrics:
    """The metrics of one training, in a registry of their own."""

    def __init__(self, toolset: str) -> None:
        self.registry = new_registry()
        self._toolset = toolset
        self._adapter = LabelSet(MOST_ADAPTERS)
        self._step = Gauge(
            "agentflux_train_step", "1 for the step that the training is in, 0 for those before.", ["toolset", "step"],
            registry=self.registry,
        )  # fmt: skip
        self._done = Gauge(
            "agentflux_train_step_done_ratio",
            "How much of the step is done, of several at once the least; NaN where it cannot tell.",
            registry=self.registry,
        )
        self._remaining = Gauge(
            "agentflux_train_step_remaining_seconds",
            "Seconds that the step will still take, at its pace so far, of several at once the most; NaN where it cannot tell.",
            registry=self.registry,
        )
        # Of each step under way, by its full name: how much is done, and the seconds that it will still take.
        self._under_way: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._trajectories = Gauge(
            "agentflux_train_trajectories", "Trajectories that were kept, by part: train, valid, test.", ["part"],
            registry=self.registry,
        )  # fmt: skip
        self._dropped = Gauge(
            "agentflux_train_dropped_trajectories", "Trajectories that were dropped, by rule.", ["rule"], registry=self.registry
        )
        self._rows = Gauge("agentflux_train_rows", "Rows that an adapter learns from.", ["adapter"], registry=self.registry)
        self._too_long = Gauge(
            "agentflux_train_too_long_rows", "Rows that were dropped because they are too long, by what they teach.", ["role"],
            registry=self.registry,
        )  # fmt: skip
        self._loss = Gauge(
            "agentflux_train_loss_nats", "Mean loss per target of the last batch.", ["adapter"], registry=self.registry
        )
        self._tokens = Counter("agentflux_train_tokens_total", "Tokens trained on.", ["adapter"], registry=self.registry)
        # The process's own memory is on every page; without a GPU this is 0.
        Gauge("agentflux_train_gpu_memory_bytes", "Memory of the GPU that tensors have.", registry=self.registry).set_function(
            torch.cuda.memory_allocated
        )

    def kept(self, dataset: Mapping[str, Mapping[str, int]]) -> None:
        """What the dataset's report says of its trajectories."""
        for part, count in dataset["trajectories"].items():
            self._trajectories.labels(part).set(count)
        for rule, count in dataset["dropped"].items():
            self._dropped.labels(rule).set(count)

    def rows(self, by_adapter: Mapping[str, int], too_long: Mapping[str, int]) -> None:
        """How many rows each adapter has, and how many of each role were too long."""
        for adapter, count in by_adapter.items():
            self._rows.labels(self._adapter(adapter)).set(count)
        for role, count in too_long.items():
            self._too_long.labels(role).set(count)

    def batch(self, adapter: str, tokens: int, loss: float) -> None:
        """One batch that an adapter was trained on."""
        name = self._adapter(adapter)
        self._loss.labels(name).set(loss)
        self._tokens.labels(name).inc(tokens)

    def watched(self, bar: Bar) -> Bar:
        """The bar, which tells these metrics, too."""

        @contextmanager
        def both(name: str) -> Iterator[Tick]:
            with bar(name) as shown, self._in_step(name) as told:

                def tick(done: int, total: int) -> None:
                    shown(done, total)
                    told(done, total)

                yield tick

        return both

    @contextmanager
    def _in_step(self, name: str) -> Iterator[Tick]:
        self._stands(name, math.nan, math.nan)
        time_left = TimeLeft()

        try:
            yield lambda done, total: self._stands(name, done / total, time_left.at(done, total))
        finally:
            self._stands(name)

    def _stands(self, name: str, *found: float) -> None:
        """How much of a step is done and how many seconds it will still take; without them, that it has ended."""
        with self._lock:
            if found:
                done, remaining = found
                self._under_way[name] = (done, remaining)
            else:
                del self._under_way[name]
            # `train select` and `arguments, base` are steps by their first word, of which there are few.
            kind, *others = (one.split()[0].rstrip(",") for one in (name, *self._under_way))
            self._step.labels(self._toolset, kind).set(kind in others)
            if self._under_way:
                shares, seconds = zip(*self._under_way.values(), strict=True)
                self._done.set(_nan_or(min, shares))
                self._remaining.set(_nan_or(max, seconds))


def _nan_or(choose: Callable[[Iterable[float]], float], values: Iterable[float]) -> float:
    """What is chosen of the values, or NaN where one of them is."""
    known = list(values)
    return math.nan if any(map(math.isnan, known)) else choose(known)


@contextmanager
def recorded(store: AdapterStore, toolset: str) -> Iterator[None]:
    """Keeps in the store that a training began, and how it ended.

    Raises:
        Unavailable: the store cannot be written, and nothing could be published either.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    store.record_training(toolset, "started")
    try:
        yield
    except BaseException as error:
        # Whatever ended it is worth more than what could not be written about it.
        with suppress(AgentFluxError):
            store.record_training(toolset, "refused" if isinstance(error, GateRefused) else "failed")
        raise
    with suppress(AgentFluxError):
        store.record_training(toolset, "published")
