"""`python -m deploy.grafana.build` writes the four dashboards as Grafana's JSON.

Of the scraper they expect two labels: `job`, the service's name, and `agentflux`, which says of which deployment something is.
One deployment is shown at a time, whatever else the same Prometheus scrapes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from deploy.grafana import accuracy, engine, overview, tools
from deploy.grafana.panels import Board, Panel

FOLDER = Path(__file__).parent / "dashboards"

# Grafana's grid is 24 wide; three panels in a row.
WIDTH, HEIGHT = 8, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Every metric that a board asks for, recorded ones included, with the brace of its labels where it has some.
METRIC = re.compile(r"\b((?:agentflux|vllm|process)[_:][\w:]+|up\b)(\{\}?)?")

BOARDS = {"overview": overview.BOARD, "accuracy": accuracy.BOARD, "engine": engine.BOARD, "tools": tools.BOARD}


def grafana(board: Board) -> dict[str, Any]:
    """The board as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in board.rows.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": _place(0, top, 24, 1),
                "panels": [],
            }
        )
        for index, panel in enumerate(row):
            place = _place(index % 3 * WIDTH, top + 1 + index // 3 * HEIGHT, WIDTH, HEIGHT)
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += 1 + -(-len(row) // 3) * HEIGHT
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["agentflux"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "agentflux",
                    "label": "Deployment",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": 'label_values(up{agentflux!=""}, agentflux)',
                    "refresh": 2,
                },
            ]
        },
        "links": [{"type": "dashboards", "tags": ["agentflux"], "title": "AgentFlux", "asDropdown": True, "keepTime": True}],
        "panels": panels,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def of_one_deployment(query: str) -> str:
    """The query, of the deployment that was chosen on the board."""

    def scoped(found: re.Match[str]) -> str:
        return found[1] + '{agentflux="$agentflux"' + ("," if found[2] == "{" else "}")

    return METRIC.sub(scoped, query)


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": of_one_deployment(query),
            "legendFormat": legend,
            "exemplar": panel.kind == "timeseries",
            **({"format": "table", "instant": True} if panel.kind == "table" else {}),
        }
        for index, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def text(board: Board) -> str:
    """The file of a board."""
    return json.dumps(grafana(board), indent=1) + "\n"


def main() -> None:
    """Writes all boards."""
    FOLDER.mkdir(exist_ok=True)
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(text(board))


if __name__ == "__main__":
    main()
