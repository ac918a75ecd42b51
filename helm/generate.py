"""Makes values.schema.json and the tables of README.md, from the comments of values.yaml and from the services' settings, and
copies dashboards and alerts into the chart, which may read nothing outside. `make chart` runs it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.arguments.settings import ArgumentsSettings
from services.callcache.settings import CallCacheSettings
from services.engine.settings import EngineSettings
from services.gateway.settings import GatewaySettings
from services.sandbox.settings import SandboxSettings
from services.selector.settings import SelectorSettings
from services.shared.chassis.settings import ServiceSettings
from trainer.profiles import PROFILES

Schema = dict[str, Any]

CHART = Path(__file__).resolve().parent
REPOSITORY = CHART.parent
SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "selector": SelectorSettings,
    "arguments": ArgumentsSettings,
    "callcache": CallCacheSettings,
    "sandbox": SandboxSettings,
    "engine": EngineSettings,
}
# What the chart itself decides, and what would put a secret into plain view.
DECIDED = {
    "host", "port", "engine_url", "selector_url", "arguments_url", "callcache_url", "sandbox_target", "toolsets_dir", "model_dir",
    "adapter_store", "base_model", "redis_url", "api_key", "api_key_file", "keys_file", "upstreams_file", "decision_log",
    "log_level", "otlp_endpoint", "metrics_port", "workspace_dir", "driver", "vllm_url", "served_model_name", "device", "python",
    "bwrap", "runsc", "node", "sandbox_uid", "secrets_dir", "mcp_port", "mcp_tokens_file", "trajectory_dir",
    "private_network", "tls_certificate", "tls_key", "tls_client_ca", "sandbox_ca", "sandbox_certificate", "sandbox_key",
    "socket",
}  # fmt: skip
# Values of `defaults` that have no meaning for what never serves, is alone, or keeps sessions.
ALONE = {"replicas", "autoscaling", "maxUnavailable"}
WITHOUT = {
    "sandbox": {"autoscaling"},
    "valkey": ALONE,
    **{name: {*ALONE, "preStopSeconds"} for name in ("trainer", "prepare", "test")},
}
COMPONENTS = (*SETTINGS, "valkey", "trainer", "prepare", "test")

QUANTITY = r"^[1-9][0-9]*(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
_AMOUNT: Schema = {"anyOf": [{"type": "string", "pattern": QUANTITY}, {"type": "integer", "minimum": 0}]}
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
KINDS: dict[str, Schema] = {
    "image": {
        "type": "string",
        "pattern": r"^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        # What is behind these names changes; the same release would not be the same twice.
        "not": {"pattern": ":(latest|main|master|nightly|stable|edge)$"},
    },
    "name": {"type": "string", "maxLength": 63, "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"},
    "key": {"type": "string", "pattern": "^[A-Za-z0-9._-]*$"},
    "quantity": {"type": "string", "pattern": QUANTITY},
    "strings": _STRINGS,
    "labels": {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"},
    },
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "modes": {
        "type": "array",
        "minItems": 1,
        "items": {"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]},
    },
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {part: {"type": "object", "additionalProperties": _AMOUNT} for part in ("requests", "limits")},
    },
    "spread": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["topologyKey", "maxSkew", "whenUnsatisfiable"],
            "additionalProperties": False,
            "properties": {
                "topologyKey": {"type": "string", "pattern": "^[a-z0-9./-]+$"},
                "maxSkew": {"type": "integer", "minimum": 1},
                "whenUnsatisfiable": {"enum": ["ScheduleAnyway", "DoNotSchedule"]},
            },
        },
    },
    "metrics": {"type": "object", "additionalProperties": {"type": "string", "pattern": QUANTITY}},
    "triggers": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "threshold", "metricType", "query"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,30}$"},
                "threshold": {"type": "number", "exclusiveMinimum": 0},
                "metricType": {"enum": ["AverageValue", "Value"]},
                "query": {"type": "string", "minLength": 1},
            },
        },
    },
    "profiles": {"enum": sorted(PROFILES)},
}


@dataclass(frozen=True)
class Value:
    """One value of values.yaml: its dotted path, default, explanation and what `@schema` says."""

    path: str
    default: Any
    says: str
    hint: Schema


def read_values(text: str) -> list[Value]:
    """The values of a commented values.yaml, in its order. One that is explained is a whole, also if it is a map.

    Raises:
        ValueError: a value is not explained; names it and its line.
    """
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    return list(_walk(root, yaml.safe_load(text), text.splitlines(), ()))


def _walk(node: yaml.MappingNode, data: dict[str, Any], lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        path, line = (*above, key.value), key.start_mark.line
        says, default = _comment(lines, line), data[key.value]
        if says is not None:
            hint = re.search(r"# @schema (\{.*\})$", lines[line])
            yield Value(".".join(path), default, says, json.loads(hint[1]) if hint else {})
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _walk(value, default, lines, path)
        else:
            raise ValueError(f"values.yaml:{line + 1}: {'.'.join(path)} is not explained; put a line `# -- …` above it")


def _comment(lines: list[str], line: int) -> str | None:
    above = lines[line - 1].strip() if line else ""
    return above.removeprefix("# -- ") if above.startswith("# -- ") else None


def schema_of(values: list[Value]) -> Schema:
    """The JSON schema (draft 7) of all that can be set, every object closed."""
    root: Schema = {"type": "object", "additionalProperties": False, "properties": {}}
    for value in values:
        _put(root, value.path.split("."), _schema_of_value(value))
    defaults = root["properties"]["defaults"]
    for name in COMPONENTS:
        own = root["properties"][name]
        common = deepcopy(defaults)
        for left_out in WITHOUT.get(name, ()):
            del common["properties"][left_out]
        root["properties"][name] = _overlaid(common, own)
    for name, settings in SETTINGS.items():
        root["properties"][name]["properties"]["config"] |= config_schema(settings)
    # A chart that has this one as a part shares its own globals.
    root["properties"]["global"]["additionalProperties"] = True
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the AgentFlux chart", **root}


def _put(root: Schema, path: list[str], schema: Schema) -> None:
    for name in path[:-1]:
        root = root["properties"].setdefault(name, {"type": "object", "additionalProperties": False, "properties": {}})
    root["properties"][path[-1]] = schema


def _schema_of_value(value: Value) -> Schema:
    types = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    kind = KINDS[value.hint["$"]] if "$" in value.hint else {"type": types[type(value.default)]}
    own = {key: said for key, said in value.hint.items() if key != "$"}
    return {"description": value.says, "default": value.default, **deepcopy(kind), **own}


def _overlaid(common: Schema, own: Schema) -> Schema:
    for name, schema in own["properties"].items():
        there = common["properties"].get(name)
        is_group = there is not None and "properties" in there and "description" not in there
        common["properties"][name] = _overlaid(there, schema) if is_group else schema
    return common


def config_schema(settings: type[ServiceSettings]) -> Schema:
    """What of a service's settings an operator sets by `config`, as the settings class itself checks it."""
    whole = settings.model_json_schema()
    says = explanations(settings)
    definitions = whole.get("$defs", {})
    properties = {
        name: {**_resolved(schema, definitions), "description": says[name]}
        for name, schema in whole["properties"].items()
        if name not in DECIDED
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _resolved(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_resolved(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].removeprefix("#/$defs/")], **{key: node[key] for key in node if key != "$ref"}}
    plain = {key: _resolved(each, definitions) for key, each in node.items() if key not in ("title", "format")}
    return {**plain, "additionalProperties": False} if "properties" in plain else plain


def explanations(settings: type[ServiceSettings]) -> dict[str, str]:
    """The sentence under each field."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if issubclass(owner, ServiceSettings):
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, after in zip(body.body, body.body[1:], strict=False):
                match field, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = " ".join(said.split())
    return found


def values_table(values: list[Value]) -> str:
    """A Markdown table of all values."""
    rows = [f"| `{value.path}` | `{_shown(value.default)}` | {value.says} |" for value in values]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows])


def settings_table() -> str:
    """A Markdown table of what `config` may hold."""
    rows = []
    for service, settings in SETTINGS.items():
        for name, schema in config_schema(settings)["properties"].items():
            rows.append(f"| `{service}.config.{name}` | `{_shown(schema.get('default'))}` | {schema['description']} |")
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def _shown(default: Any) -> str:
    return json.dumps(default).replace("|", "\\|")


def with_tables(page: str, tables: dict[str, str]) -> str:
    """`page` with each table between its marks, `<!-- name -->` and `<!-- /name -->`."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


def outputs() -> dict[Path, str]:
    """All that is generated, by file."""
    values = read_values((CHART / "values.yaml").read_text("utf-8"))
    readme = CHART / "README.md"
    made = {
        CHART / "values.schema.json": json.dumps(schema_of(values), indent=1, ensure_ascii=False) + "\n",
        readme: with_tables(readme.read_text("utf-8"), {"values": values_table(values), "settings": settings_table()}),
    }
    copied = {
        "dashboards": (REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json"),
        "rules": (REPOSITORY / "deploy" / "prometheus").glob("rules*.yaml"),
    }
    for folder, sources in copied.items():
        made |= {CHART / "files" / folder / source.name: source.read_text("utf-8") for source in sources}
    return made


def main() -> None:
    """Writes what is generated."""
    for folder in ("dashboards", "rules"):
        shutil.rmtree(CHART / "files" / folder, ignore_errors=True)
    for file, text in outputs().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        print(file.relative_to(REPOSITORY), file=sys.stderr)


if __name__ == "__main__":
    main()
