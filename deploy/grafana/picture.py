"""`python -m deploy.grafana.picture accuracy --prometheus http://127.0.0.1:9090` draws a board as a picture, without Grafana.

It asks a running Prometheus what the board's panels ask, over the last minutes, and writes deploy/grafana/<board>.png.
Needs matplotlib (`pip install matplotlib`), which nothing else here does. How the picture in the repository was made:
tests/bench/dashboards.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import httpx

from deploy.grafana.build import BOARDS
from deploy.grafana.panels import Panel

# Points of a line; Prometheus computes each of them.
POINTS = 60
PERCENT = "percentunit"


def main() -> None:
    """Draws one board."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("board", choices=BOARDS)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="base URL")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--window", default="30s", help="what Grafana would put in the place of $__rate_interval")
    args = parser.parse_args()
    draw(args.board, args.prometheus, minutes=args.minutes, window=args.window)


def draw(name: str, prometheus: str, *, minutes: float, window: str) -> Path:
    """Writes the picture of a board and returns where it is."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    panels = [panel for panel in BOARDS[name].panels if panel.kind != "table"]
    rows = -(-len(panels) // 3)
    figure, grid = pyplot.subplots(rows, 3, figsize=(15, 2.7 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    end = time.time()
    with httpx.Client(base_url=prometheus, timeout=60) as client:
        for panel, axes in zip(panels, grid.flat, strict=False):
            for legend, points in lines(client, panel, window, end=end, seconds=minutes * 60):
                axes.plot([moment - end for moment, _ in points], [value for _, value in points], label=legend, linewidth=1.4)
            axes.set_title(panel.title, fontsize=10, loc="left", fontweight="bold")
            axes.set_xlim(-minutes * 60, 0)
            axes.set_ylim(0, panel.top * 1.03 if panel.top else None)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.25)
            if panel.unit == PERCENT:
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            if panel.limit is not None:
                axes.axhline(panel.limit, color="tab:red", linewidth=0.8, linestyle="--")
            if axes.lines:
                axes.legend(fontsize=7, loc="best", framealpha=0.6)
            else:
                axes.text(0.5, 0.5, "nothing happened", transform=axes.transAxes, ha="center", color="grey")
    figure.suptitle(f"{BOARDS[name].title}: the last {minutes:g} minutes of a real run, seconds before its end", fontsize=11)
    path = Path(__file__).parent / f"{name}.png"
    figure.savefig(path, dpi=70)
    return path


def lines(
    client: httpx.Client, panel: Panel, window: str, *, end: float, seconds: float
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Each line of a panel: its legend, and pairs of time and value; what is no number is left out."""
    found = []
    for query, legend in panel.queries:
        times: dict[str, str | float] = {"start": end - seconds, "end": end, "step": seconds / POINTS}
        asked = {**times, "query": query.replace("$__rate_interval", window)}
        reply = client.get("/api/v1/query_range", params=asked).raise_for_status().json()
        for series in reply["data"]["result"]:
            points = [(float(moment), float(value)) for moment, value in series["values"] if value not in ("NaN", "+Inf", "-Inf")]
            if points:
                found.append((_named(legend, series["metric"]), points))
    return found


def _named(legend: str, labels: dict[str, Any]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", str(value))
    return legend


if __name__ == "__main__":
    main()
