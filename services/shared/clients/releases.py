"""Follows the adapter store: notices a new release, warms its adapters on every engine, and only then lets it serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.contracts.adapters import AdapterCard, Manifest, Release, ServedRelease, Training
from services.shared.contracts.errors import AgentFluxError, InvalidRequest, NotFound, Unavailable

log = structlog.get_logger()

# A publish is to be noticed within two seconds.
POLL_S = 0.5
# After a refusal the store is looked at again when it changes; after a failure of the engine, this often.
RETRY_S = 2.0
# Releases that stay known after they were replaced, for requests that they began; the oldest are forgotten.
KEPT = 256
# Adapters of one toolset that get a series: more tools than a vote has.
SHOWN = 130

Warm = Callable[[str], Awaitable[None]]


class Store(Protocol):
    """What following needs of `AdapterStore`; all of it reads files."""

    def look(self) -> tuple[dict[str, Manifest], dict[str, str]]: ...

    def trainings(self) -> dict[str, Training]: ...

    def verify(self, name: str) -> AdapterCard: ...


class ReleaseMetrics:
    """What serves, and what was refused; toolsets are ours, so their names may be labels."""

    def __init__(self) -> None:
        self.serving = Gauge(
            "agentflux_release", "Number of the release that serves; 0 while the base model does.", ["toolset"], registry=None
        )
        self.promoted = Gauge(
            "agentflux_release_promoted_timestamp_seconds",
            "When the release that serves was promoted, in seconds since 1970.",
            ["toolset"],
            registry=None,
        )
        self.adapters = Gauge(
            "agentflux_adapter_info",
            "1 for each adapter of the releases that serve; those that were replaced are gone.",
            ["toolset", "adapter", "release"],
            registry=None,
        )
        self.changes = Counter(
            "agentflux_release_changes_total", "New releases by outcome: served, refused, failed.", ["toolset", "outcome"],
            registry=None,
        )  # fmt: skip
        self.warming = Histogram(
            "agentflux_release_warm_seconds",
            "Time from noticing a release until every adapter of it answered on every engine.",
            buckets=(0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64),
            registry=None,
        )
        self.trainings = Gauge(
            "agentflux_train_last_timestamp_seconds",
            "When a training of the toolset last started, published, was refused by the gate, or failed, in seconds since 1970; "
            "0 for never.",
            ["toolset", "event"],
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Shows the metrics on the page of `registry`."""
        for metric in (self.serving, self.promoted, self.adapters, self.changes, self.warming, self.trainings):
            registry.register(metric)

    def expect(self, toolset: str) -> None:
        """Shows the outcomes of a toolset as 0: a first refusal that came out of nothing would be no increase to Prometheus."""
        for outcome in ("served", "refused", "failed"):
            self.changes.labels(toolset, outcome)

    def trained(self, toolset: str, training: Training) -> None:
        """Shows when trainings of a toolset began and ended."""
        for event, moment in training.model_dump().items():
            self.trainings.labels(toolset, event).set(moment)

    def serves(self, toolset: str, release: Release | None) -> None:
        """Shows what serves a toolset now; None for the base model."""
        self.serving.labels(toolset).set(release.number if release else 0)
        self.adapters.remove_by_labels({"toolset": toolset})
        self.promoted.remove_by_labels({"toolset": toolset})
        if release is not None:
            # A manifest's time is for people, and may say anything.
            with suppress(ValueError):
                promoted_at = datetime.fromisoformat(release.promoted_at).timestamp()
                self.promoted.labels(toolset).set(promoted_at)
            for name in release.adapters.names[:SHOWN]:
                self.adapters.labels(toolset, name, str(release.number)).set(1)


class ReleaseWatcher:
    """Implements `Releases` on a store.

    A release serves whole or not at all: every adapter of it was verified, fits, and has answered once. Until then, and
    when it is refused, the one before it serves on. Where there is none before it, the base model serves, but not right after a
    start: then nobody would know why answers are worse for a while.
    """

    def __init__(self, store: Store, warm: Warm, fits: Callable[[AdapterCard], None], *, poll_s: float = POLL_S) -> None:
        self.metrics = ReleaseMetrics()
        self._store = store
        self._warm = warm
        self._fits = fits
        self._poll_s = poll_s
        self._serving: dict[str, ServedRelease] = {}
        self._known: dict[tuple[str, int], ServedRelease] = {}
        self._refused: dict[str, Release] = {}
        self._retry_at: dict[str, float] = {}
        self._warmed: set[str] = set()
        self._complaints: dict[str, str] = {}
        # Toolsets whose release was there at the start, and has neither served nor been refused yet; None before the first look.
        self._awaited: set[str] | None = None

    def current(self, toolset: str) -> ServedRelease | None:
        """The release that serves now; None for the base model.

        Raises:
            Unavailable: the release that was there at the start is still being warmed, or the store was not read yet.
        """
        if release := self._serving.get(toolset):
            return release
        if self._awaited is None or toolset in self._awaited:
            problem = self._complaints.get("" if self._awaited is None else toolset)
            raise Unavailable(f"the adapters of toolset {toolset!r} are being warmed{f'; {problem}' if problem else ''}")
        return None

    async def numbered(self, toolset: str, number: int) -> ServedRelease:
        """A release by number; one that is not known yet is read from the store."""
        if known := self._known.get((toolset, number)):
            return known
        manifests, _ = await asyncio.to_thread(self._store.look)
        manifest = manifests.get(toolset)
        release = manifest.release(number) if manifest else None
        if release is None:
            raise Unavailable(
                f"release {number} of toolset {toolset!r} is not in the adapter store of this service; "
                "do all services see the same store?"
            )
        return await asyncio.to_thread(self._read, toolset, release)

    def adapters(self) -> list[str]:
        """Every adapter of the releases that serve."""
        return [name for release in self._serving.values() for name in release.adapters.names]

    async def obstacle(self) -> str | None:
        """None once every release found at the start either serves or was refused."""
        return None if self._awaited == set() else "the adapters are being warmed"

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows the store until the end of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except AgentFluxError as error:
                self._complain("", error.message)
            except Exception:
                log.exception("the adapter store could not be followed")
            await asyncio.sleep(self._poll_s)

    async def _look(self) -> None:
        """Brings what serves in line with the store."""
        manifests, problems = await asyncio.to_thread(self._store.look)
        if self._awaited is None:
            self._awaited = set(manifests)
        self._awaited &= manifests.keys() | problems.keys()
        for toolset, problem in problems.items():
            self._complain(toolset, problem)
        for toolset, training in (await asyncio.to_thread(self._store.trainings)).items():
            self.metrics.trained(toolset, training)
        # A manifest that cannot be read is no wish to stop serving; one that was removed is.
        for toolset in self._serving.keys() - manifests.keys() - problems.keys():
            log.warning("toolset has no release any more", toolset=toolset)
            del self._serving[toolset]
            self.metrics.serves(toolset, None)
        for manifest in manifests.values():
            if await self._follow(manifest):
                self._awaited.discard(manifest.toolset)

    async def _follow(self, manifest: Manifest) -> bool:
        """Whether the newest release serves or was refused; False while an engine could not take it."""
        toolset, release = manifest.toolset, manifest.current
        self.metrics.expect(toolset)
        serving = self._serving.get(toolset)
        # Not by its number alone: after a manifest was removed, or put back from a copy, numbers come a second time.
        serves = serving and (serving.number, serving.adapters) == (release.number, release.adapters)
        if serves or self._refused.get(toolset) == release:
            return True
        if time.monotonic() < self._retry_at.get(toolset, 0.0):
            return False
        started = time.monotonic()
        try:
            found = await asyncio.to_thread(self._read, toolset, release)
            await self._warm_all(found.adapters.names)
        except (InvalidRequest, NotFound) as error:
            # By us or by an engine, whose limits (such as the rank) only it knows. What is immutable stays refused.
            self._refused[toolset] = release
            self.metrics.changes.labels(toolset, "refused").inc()
            log.error("release refused", toolset=toolset, release=release.number, reason=error.message, serving=_number(serving))
            return True
        except AgentFluxError as error:
            self._retry_at[toolset] = time.monotonic() + RETRY_S
            self.metrics.changes.labels(toolset, "failed").inc()
            self._complain(toolset, f"release {release.number} could not be warmed: {error.message}")
            return False
        self._serving[toolset] = found
        self._complaints.pop(toolset, None)
        self.metrics.serves(toolset, release)
        self.metrics.changes.labels(toolset, "served").inc()
        self.metrics.warming.observe(time.monotonic() - started)
        log.info(
            "release serves", toolset=toolset, release=release.number, before=_number(serving),
            adapters=found.adapters.names, after_s=round(time.monotonic() - started, 3),
        )  # fmt: skip
        return True

    def _read(self, toolset: str, release: Release) -> ServedRelease:
        cards = {name: self._store.verify(name) for name in release.adapters.names}
        for card in cards.values():
            self._fits(card)
        found = ServedRelease(toolset, release.number, release.adapters, cards)
        self._known[toolset, release.number] = found
        while len(self._known) > KEPT:
            self._known.pop(next(iter(self._known)), None)
        return found

    async def _warm_all(self, names: Iterable[str]) -> None:
        # One by one: each is loaded inside the engine's loop, where requests wait for it; they get their turn in between.
        for name in names:
            # A roll-back is to adapters that the engines have, or will load again by themselves: it need not wait.
            if name not in self._warmed:
                await self._warm(name)
                self._warmed.add(name)

    def _complain(self, toolset: str, problem: str) -> None:
        if self._complaints.get(toolset) != problem:
            log.error("adapter store", toolset=toolset, problem=problem)
            self._complaints[toolset] = problem


def _number(release: ServedRelease | None) -> int | None:
    return release.number if release else None
