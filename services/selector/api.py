"""The selector's door: POST /v1/select."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.selector.shadow import Shadow
from services.selector.voting import entropy
from services.shared.chassis.telemetry import describe
from services.shared.contracts import semconv
from services.shared.contracts.selection import Selection, SelectionRequest, ToolSelector

# Every publish brings new names; the series of those that have not voted for the longest time are dropped.
MOST_VOTERS = 40


class SelectionMetrics:
    """How sure the votes are; never labelled by tool, which any client may name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.margin = Histogram(
            "agentflux_vote_margin_ratio",
            "Lead of the winner over the runner-up; negative where the answer threshold decided.",
            ["strategy", "adapter"],
            buckets=[i / 10 for i in range(11)],
            registry=registry,
        )
        self.entropy = Histogram(
            "agentflux_vote_entropy_ratio",
            "Entropy of the vote over its largest possible value: 0 certain, 1 no idea.",
            ["strategy", "adapter"],
            buckets=[i / 10 for i in range(11)],
            registry=registry,
        )
        self.valid_mass = Histogram(
            "agentflux_vote_valid_mass_ratio",
            "Probability (exact) or share of samples (sample) that named any candidate.",
            ["strategy", "adapter"],
            buckets=[0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0],
            registry=registry,
        )
        self.selections = Counter(
            "agentflux_selections_total", "Votes, by what won.", ["outcome", "strategy", "adapter"], registry=registry
        )
        self.shadow = Counter(
            "agentflux_shadow_votes_total",
            "Votes repeated by a candidate: agreed, differed, unfit (it learned other tools), failed, skipped.",
            ["adapter", "outcome"],
            registry=registry,
        )
        self._voters: dict[str, None] = {}

    def observe(self, selection: Selection) -> None:
        """Counts one vote."""
        self._vote_of(selection.adapter)
        labels = (selection.strategy, selection.adapter)
        self.margin.labels(*labels).observe(selection.margin)
        self.entropy.labels(*labels).observe(entropy(selection.probabilities.values()))
        self.valid_mass.labels(*labels).observe(selection.valid_mass)
        self.selections.labels("tool" if selection.tool else "answer", *labels).inc()

    def _vote_of(self, adapter: str) -> None:
        # Taken out and put in again: the first one is the one that has not voted for the longest time.
        self._voters.pop(adapter, None)
        self._voters[adapter] = None
        if len(self._voters) > MOST_VOTERS:
            oldest = next(iter(self._voters))
            del self._voters[oldest]
            for metric in (self.margin, self.entropy, self.valid_mass, self.selections):
                metric.remove_by_labels({"adapter": oldest})


def router(selector: ToolSelector, metrics: SelectionMetrics, shadow: Shadow | None = None) -> APIRouter:
    """The routes of the service; `shadow` sees every vote."""
    routes = APIRouter()

    @routes.post("/v1/select")
    async def select(request: SelectionRequest) -> Selection:
        selection = await selector.select(request)
        metrics.observe(selection)
        if shadow is not None:
            shadow.consider(request, selection)
        describe(
            {
                semconv.TOOL_NAME: selection.tool,
                semconv.ADAPTER: selection.adapter,
                semconv.RELEASE: selection.release,
                semconv.STRATEGY: selection.strategy,
                semconv.MARGIN: selection.margin,
            }
        )
        return selection

    return routes
