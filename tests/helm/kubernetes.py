"""What the API server of a Kubernetes version would say to an object, from the schemas that kubernetes-validate carries, and from
ours for kinds that are not Kubernetes' own. Strict: fields that nobody knows are an error.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate  # type: ignore[import-untyped]

# The oldest that the chart supports, and those that people run.
VERSIONS = ("1.27", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_OURS = Path(__file__).parent / "crds"


def complaints(manifest: dict[str, Any], version: str) -> list[str]:
    """What is wrong with an object, each with its place; empty when it is right."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    errors = _validator(manifest["apiVersion"], kind, version).iter_errors(manifest)
    return [f"{kind} {name}, {'.'.join(map(str, error.instance_path))}: {error.message[:300]}" for error in errors]


@lru_cache
def _validator(api_version: str, kind: str, version: str) -> Any:
    group, _, number = api_version.rpartition("/")
    ours = _OURS / f"{kind}.json"
    if ours.exists():
        return jsonschema_rs.validator_for(json.loads(ours.read_text("utf-8")))
    folder = _SCHEMAS / f"v{version}.0-local-strict"
    file = folder / ("-".join(filter(None, [kind.lower(), group.split(".")[0], number])) + ".json")
    # The schemas call each other by addresses that are only names.
    return jsonschema_rs.validator_for(
        json.loads(file.read_bytes()), retriever=lambda uri: json.loads((folder / uri.rpartition("/")[2]).read_bytes())
    )
