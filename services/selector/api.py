"""The selector's door: POST /v1/select."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.shared.contracts.selection import Selection, SelectionRequest, ToolSelector


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

    def observe(self, selection: Selection) -> None:
        """Counts one vote."""
        labels = (selection.strategy, selection.adapter)
        self.margin.labels(*labels).observe(selection.margin)
        self.valid_mass.labels(*labels).observe(selection.valid_mass)
        self.selections.labels("tool" if selection.tool else "answer", *labels).inc()


def router(selector: ToolSelector, metrics: SelectionMetrics) -> APIRouter:
    """The routes of the service."""
    routes = APIRouter()

    @routes.post("/v1/select")
    async def select(request: SelectionRequest) -> Selection:
        selection = await selector.select(request)
        metrics.observe(selection)
        return selection

    return routes
