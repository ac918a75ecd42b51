"""The chart renders and lints with both majors of helm, and Kubernetes would take every object of it."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings

from tests.helm.helm import CHART, MAJORS, REPOSITORY, Manifest, Refused, helm, render
from tests.helm.kubernetes import VERSIONS, complaints
from tests.helm.manifests import EVERYTHING, FILES, of_kind, pods
from tests.helm.strategies import values

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
GOLDEN = REPOSITORY / "tests" / "helm" / "golden"
# AGENTFLUX_CHART_EXAMPLES=200 takes a minute.
EXAMPLES = int(os.environ.get("AGENTFLUX_CHART_EXAMPLES", "12"))
# How the chart's own refusals begin; anything else that helm says against allowed values is a fault of the chart.
REFUSALS = re.compile(r"execution error at \(agentflux/templates/\S+: (auth|sandbox|model\.fromImage|[a-z]+\.autoscaling)\b")


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("file", FILES)
def test_every_values_file_is_linted_without_a_warning(file: str, major: int) -> None:
    said = helm(major, "lint", "--strict", "--values", str(CHART / file))
    assert "0 chart(s) failed" in said
    assert "WARNING" not in said


def test_both_majors_of_helm_render_the_same() -> None:
    given: dict[str, Any] = {**EVERYTHING, "auth": {"existingSecret": "keys"}, "redis": {"existingSecret": "redis"}}
    four, three = (render(given, major=major) for major in MAJORS)
    assert _sorted(four) == _sorted(three)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_every_object(version: str) -> None:
    objects = [manifest for file in FILES for manifest in render(files=(file,))] + render(EVERYTHING)
    assert [said for manifest in objects for said in complaints(manifest, version)] == []


def test_an_object_that_kubernetes_would_refuse_is_found() -> None:
    deployment = of_kind(render(), "Deployment")["agentflux-gateway"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    assert len(complaints(deployment, "1.35")) == 1


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(values(SCHEMA))
def test_whatever_the_schema_allows_renders(given: dict[str, Any]) -> None:
    objects, refusal = _attempt(given)
    assert REFUSALS.search(refusal) or not refusal, refusal
    # Counted are those that render.
    assume(not refusal)
    assert [said for manifest in objects for said in complaints(manifest, "1.35")] == []


@pytest.mark.parametrize("name", ["values", "values-single-gpu", "values-ha"])
def test_what_is_installed_changes_only_on_purpose(name: str) -> None:
    # AGENTFLUX_GOLDEN=1 writes it anew; the difference is for the review.
    file = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump_all(_sorted(map(_abridged, render(files=(f"{name}.yaml",)))), width=130)
    if os.environ.get("AGENTFLUX_GOLDEN"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")


def test_names_stay_within_what_kubernetes_allows_for_long_release_names() -> None:
    objects = render({**EVERYTHING, "fullnameOverride": "a" * 40})
    longest = {"CronJob": 52, "StatefulSet": 52}
    assert [each["metadata"]["name"] for each in objects if len(each["metadata"]["name"]) > longest.get(each["kind"], 63)] == []


def test_no_two_objects_have_one_name() -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in render(EVERYTHING)]
    assert len(names) == len(set(names))


def test_a_component_that_is_not_wanted_leaves_nothing_behind() -> None:
    objects = render({"sandbox": {"enabled": False}, "redis": {"existingSecret": "mine"}})
    assert not {pod.component for pod in pods(objects)} & {"sandbox", "valkey"}
    assert not [name for kind in ("Service", "NetworkPolicy", "Secret") for name in of_kind(objects, kind) if "valkey" in name]


def test_the_notes_say_how_to_reach_it_and_where_the_key_is() -> None:
    given = {"gateway": {"ingress": {"enabled": True, "host": "agents.example", "tlsSecret": "certificate"}}}
    said = helm(4, "install", "agentflux", "--dry-run=client", "--namespace", "agents", values=given)
    notes = said[said.index("NOTES:") :]
    for line in (
        "https://agents.example/v1",
        "port-forward svc/agentflux-gateway 8030:8030",
        """get secret agentflux-api-key -o go-template='{{index .data "api-key" | base64decode}}'""",
        "helm -n agents test agentflux --logs",
    ):
        assert line in notes
    assert "sandbox" not in notes


def _attempt(given: dict[str, Any]) -> tuple[list[Manifest], str]:
    try:
        return render(given), ""
    except Refused as error:
        return [], str(error)


def _abridged(manifest: Manifest) -> Manifest:
    """Without what is random, and what is another file's."""
    match manifest["kind"]:
        case "Secret" | "ConfigMap":
            return {**manifest, "data": sorted(manifest["data"])}
        case "PrometheusRule":
            return {**manifest, "spec": "…"}
    return manifest


def _sorted(manifests: Any) -> list[Manifest]:
    return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))
