"""Every metric that a PromQL expression names, by a real parser."""

from __future__ import annotations

import re

import promql_parser

SUFFIXES = re.compile(r"_(bucket|sum|count|total)$")


def metrics_of(query: str) -> set[str]:
    """Names of the metrics in a query; Grafana's variables stand for a time.

    Raises:
        ValueError: it is no PromQL.
    """
    names: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"a selector without a name in {query!r}"
            names.add(node.name)
        for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (child := getattr(node, part, None)) is not None and not isinstance(child, str):
                walk(child)
        for child in getattr(node, "args", None) or ():
            walk(child)

    walk(promql_parser.parse(query.replace("$__rate_interval", "1m")))
    return names


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
