"""Random values that the chart's schema allows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

# What the schema leaves to Kubernetes to judge: one thing of each kind that is right.
_PEERS = [[], [{"ipBlock": {"cidr": "10.0.0.0/8"}}]]
_EGRESS = [[], [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443, "protocol": "TCP"}]}]]
LEFT_OPEN: dict[str, list[Any]] = {
    "tolerations": [[], [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]],
    "affinity": [{}, {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}],
    "extraEnv": [[], [{"name": "TZ", "value": "UTC"}]],
    "extraEnvFrom": [[], [{"secretRef": {"name": "more"}}]],
    "extraVolumes": [[], [{"name": "more", "emptyDir": {}}]],
    "extraVolumeMounts": [[], [{"name": "more", "mountPath": "/more"}]],
    "extraObjects": [[], [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}]],
    **dict.fromkeys(("clients", "monitoring", "dns"), _PEERS),
    **dict.fromkeys(("networkPolicy.redis", "upstreams", "otlp", "networkPolicy.sandbox"), _EGRESS),
}

_LABEL = st.from_regex(re.compile("[a-z]{1,8}(/[a-z]{1,8})?", re.ASCII), fullmatch=True)
# What an environment variable can hold, and what YAML and templates could stumble over.
_TEXT = st.text(st.sampled_from("abcXYZ019 .:,-_/\\'\"{}[]#&*!|>%@`~=\n\täß€"), max_size=20)


def leaves(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every value that can be set, by its path."""
    for name, each in schema.get("properties", {}).items():
        if "properties" in each and "description" not in each:
            yield from leaves(each, (*path, name))
        else:
            yield (*path, name), each


def values(schema: Schema, most: int = 12) -> st.SearchStrategy[dict[str, Any]]:
    """Up to `most` values, set at once."""
    one = st.sampled_from(list(leaves(schema))).flatmap(lambda leaf: st.tuples(st.just(leaf[0]), _value(leaf[0], leaf[1])))
    return st.lists(one, min_size=1, max_size=most, unique_by=lambda pair: pair[0]).map(_nested)


def _nested(pairs: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for path, value in pairs:
        place = whole
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return whole


def _value(path: tuple[str, ...], schema: Schema) -> st.SearchStrategy[Any]:
    for name in (".".join(path[-2:]), path[-1]):
        if name in LEFT_OPEN and ("items" in schema or schema.get("type") == "object") and not _is_closed(schema):
            return st.sampled_from(LEFT_OPEN[name])
    return like(schema)


def _is_closed(schema: Schema) -> bool:
    return "properties" in schema.get("items", schema)


def like(schema: Schema) -> st.SearchStrategy[Any]:
    """Anything that a schema of our kind allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([like(each) for each in schema["anyOf"]])
    match schema["type"]:
        case list() as types:
            return st.one_of([like({**schema, "type": each}) for each in types])
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return _integers(schema)
        case "number":
            return _numbers(schema)
        case "string":
            return _strings(schema)
        case "array":
            return st.lists(like(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    if "properties" in schema:
        known = {name: like(each) for name, each in schema["properties"].items()}
        required = {name: known[name] for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional={name: known[name] for name in known if name not in required})
    return st.dictionaries(_LABEL, like(schema["additionalProperties"]), max_size=2)


def _integers(schema: Schema) -> st.SearchStrategy[int]:
    least = schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else schema.get("minimum", -1000)
    return st.integers(int(least), int(schema.get("maximum", 1_000_000_000)))


def _numbers(schema: Schema) -> st.SearchStrategy[float]:
    least = schema.get("exclusiveMinimum", schema.get("minimum", 0))
    return st.floats(least, schema.get("maximum", 100_000), exclude_min="exclusiveMinimum" in schema, allow_subnormal=False)


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    if "pattern" not in schema:
        return _TEXT.filter(lambda text: len(text) >= schema.get("minLength", 0))
    pattern = re.compile(schema["pattern"].removeprefix("^").removesuffix("$"), re.ASCII)
    found = st.from_regex(pattern, fullmatch=True, alphabet=st.characters(min_codepoint=32, max_codepoint=126))
    refused = schema.get("not", {}).get("pattern")
    return found.filter(
        lambda text: (
            schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 200) and not (refused and re.search(refused, text))
        )
    )
