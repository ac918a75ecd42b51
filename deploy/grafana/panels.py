"""What a panel and a dashboard are, and the few shapes of PromQL that panels ask in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# Grafana's: an interval that fits the picture's width, and never less than four scrapes.
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are pairs of PromQL and legend; `unit` is Grafana's; `limit` draws a red line from there on."""

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    limit: float | None = None
    top: float | None = None


@dataclass(frozen=True)
class Board:
    """A dashboard; `rows` by their titles."""

    uid: str
    title: str
    rows: dict[str, list[Panel]] = field(default_factory=dict)

    @property
    def panels(self) -> list[Panel]:
        """All of them, in order."""
        return [panel for row in self.rows.values() for panel in row]


def quantiles(metric: str, labels: str = "", by: str = "") -> list[tuple[str, str]]:
    """p50, p95 and p99 of a histogram, or p95 by a label."""
    rate = f"rate({metric}_bucket{{{labels}}}{RATE})"
    if by:
        return [(f"histogram_quantile(0.95, sum by (le, {by}) ({rate}))", f"{{{{{by}}}}} p95")]
    return [(f"histogram_quantile({q}, sum by (le) ({rate}))", f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)]


def mean(metric: str, by: str) -> tuple[str, str]:
    """The mean of a histogram by a label."""
    sums, counts = (f"sum by ({by}) (rate({metric}_{part}{RATE}))" for part in ("sum", "count"))
    return f"{sums} / {counts}", f"{{{{{by}}}}}"


def share(metric: str, of: str, by: str = "", all_of: str = "") -> str:
    """The share of a counter's increase in which labels are `of`, among those with labels `all_of`."""
    grouping = f" by ({by})" if by else ""
    part, whole = (f"sum{grouping} (rate({metric}{{{labels}}}{RATE}))" for labels in (of, all_of))
    # What never happened has no series yet, and its share is 0 then, not unknown.
    return f"({part} or 0 * {whole}) / {whole}"


def ratio(part: str, whole: str) -> str:
    """What one counter's increase is of another's, all series together."""
    return f"sum(rate({part}{RATE})) / sum(rate({whole}{RATE}))"


def rates(metric: str, by: str, labels: str = "") -> tuple[str, str]:
    """A counter's increase per second by labels."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return f"sum by ({by}) (rate({metric}{{{labels}}}{RATE}))", legend
