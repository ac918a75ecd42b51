"""The dashboards tell the truth: files as generated, PromQL that parses, metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.build import BOARDS, FOLDER, grafana, text
from deploy.local.plan import REPOSITORY
from tests.observability.promql import exists, families_of, metrics_of, selectors_of

RULES = REPOSITORY / "deploy" / "prometheus" / "rules.yaml"
VLLM = Path(__file__).parent / "vllm_metrics.txt"
# Of Prometheus itself: for each target, and for each scrape of it.
SCRAPER = {"up": "gauge", "scrape_samples_scraped": "gauge"}
QUERIES = [
    pytest.param(query, id=f"{name}: {panel.title} {index}")
    for name, board in BOARDS.items()
    for panel in board.panels
    for index, (query, _) in enumerate(panel.queries)
]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def families(pages: dict[str, str]) -> dict[str, str]:
    """Everything that a query can ask for: our pages, vLLM's, the scraper's own, and what rules record."""
    ours = {name: kind for page in pages.values() for name, kind in families_of(page).items()}
    vllm = dict(line.split() for line in VLLM.read_text().splitlines() if line and not line.startswith("#"))
    return {**ours, **vllm, **SCRAPER, **{rule["record"]: "gauge" for rule in rules() if "record" in rule}}


@pytest.mark.parametrize("name", BOARDS)
def test_the_files_are_those_that_the_module_writes(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text(BOARDS[name]), "run python -m deploy.grafana.build"


@pytest.mark.parametrize("query", QUERIES)
async def test_what_a_panel_asks_for_exists(query: str, families: dict[str, str]) -> None:
    assert {name for name in metrics_of(query) if not exists(name, families)} == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
async def test_what_a_rule_asks_for_exists(rule: dict[str, Any], families: dict[str, str]) -> None:
    assert {name for name in metrics_of(rule["expr"]) if not exists(name, families)} == set()


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_shows_one_deployment_at_a_time(name: str) -> None:
    board = grafana(BOARDS[name])
    [variable] = [each for each in board["templating"]["list"] if each["name"] == "agentflux"]
    assert variable["query"] == 'label_values(up{agentflux!=""}, agentflux)'
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert queries
    for query in queries:
        for selector in selectors_of(query):
            assert 'agentflux="$agentflux"' in map(str, selector.matchers.matchers), f"{selector} in {query}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_marks_what_the_targets_of_others_have_too(rule: dict[str, Any]) -> None:
    for selector in selectors_of(rule["expr"]):
        ours = selector.name is not None and selector.name.startswith("agentflux")
        assert ours or 'agentflux=~".*"' in map(str, selector.matchers.matchers), f"{selector} in {rule['expr']}"


def test_a_metric_that_does_not_exist_is_noticed(pages: dict[str, str]) -> None:
    families = families_of(pages["gateway"])
    assert exists("agentflux_turns_total", families)
    assert exists("agentflux_overhead_seconds_bucket", families)
    assert not exists("agentflux_overhead_seconds", families)
    assert not exists("agentflux_turns_bucket", families)
    assert not exists("vllm:gpu_prefix_cache_hits_total", families)


def test_boards_have_stable_uids_and_leave_the_datasource_open() -> None:
    assert [board.uid for board in BOARDS.values()] == [
        "agentflux-overview", "agentflux-accuracy", "agentflux-engine", "agentflux-tools",
    ]  # fmt: skip
    for board in BOARDS.values():
        shown = grafana(board)
        assert len({panel["id"] for panel in shown["panels"]}) == len(shown["panels"])
        assert set(re.findall(r'"uid": "([^"]+)"', json.dumps(shown["panels"]))) == {"${datasource}"}
        places = [panel["gridPos"] for panel in shown["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
        assert len(cells) == len(set(cells)), "panels overlap"
        assert all(panel.description for panel in board.panels)


def test_vllms_metrics_are_those_of_the_vllm_that_is_installed() -> None:
    loggers = [path.read_text() for path in Path(".venv").glob("lib/python*/site-packages/vllm/v1/metrics/loggers.py")]
    if not loggers:
        pytest.skip("no vLLM is installed in .venv")
    for line in VLLM.read_text().splitlines():
        if line and not line.startswith("#"):
            # In the source, counters are called without their suffix.
            name, kind = line.split()
            assert f'name="{name.removesuffix("_total") if kind == "counter" else name}"' in loggers[0], name
