"""Every metric that a PromQL expression names, and every selector that is one's, by a real parser."""

from __future__ import annotations

import re

import promql_parser

SUFFIXES = re.compile(r"_(bucket|sum|count|total)$")


def metrics_of(query: str) -> set[str]:
    """Names of the metrics in a query.

    Raises:
        ValueError: it is no PromQL.
    """
    names = {selector.name for selector in selectors_of(query)}
    assert all(names), f"a selector without a name in {query!r}"
    return {name for name in names if name}


def selectors_of(query: str) -> list[promql_parser.VectorSelector]:
    """Every selector of a query; Grafana's interval stands for a time.

    Raises:
        ValueError: it is no PromQL.
    """
    found: list[promql_parser.VectorSelector] = []

    def walk(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (child := getattr(node, part, None)) is not None and not isinstance(child, str):
                walk(child)
        for child in getattr(node, "args", None) or ():
            walk(child)

    walk(promql_parser.parse(query.replace("$__rate_interval", "1m")))
    return found


def families_of(page: str) -> dict[str, str]:
    """Kinds (counter, gauge, histogram) of the metrics on a page, by name."""
    return {name: kind for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE)}


def exists(metric: str, families: dict[str, str]) -> bool:
    """Whether a scrape has the metric: itself, or as a part of a histogram."""
    if metric in families:
        # A histogram has no value of its own.
        return families[metric] != "histogram"
    base = SUFFIXES.sub("", metric)
    return families.get(base) == "histogram" and metric.endswith(("_bucket", "_sum", "_count"))
