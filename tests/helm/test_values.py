"""Every value is explained, has a schema, and is refused with a reason when it is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from helm.generate import config_schema, outputs, read_values, schema_of, with_tables
from services.gateway.settings import GatewaySettings
from tests.helm.helm import CHART, MAJORS, REPOSITORY, Refused, render
from tests.helm.strategies import leaves

VALUES = (CHART / "values.yaml").read_text("utf-8")
MADE = outputs()


@pytest.mark.parametrize("path", [path.relative_to(REPOSITORY).as_posix() for path in MADE])
def test_what_is_generated_is_up_to_date(path: str) -> None:
    file = REPOSITORY / path
    assert file.exists(), "run `make chart`"
    assert file.read_text("utf-8") == MADE[file], f"{path} is not what values.yaml and the settings say; run `make chart`"


def test_no_dashboard_or_rule_stays_that_is_gone() -> None:
    there = {file for folder in ("dashboards", "rules") for file in (CHART / "files" / folder).glob("*")}
    assert there == {file for file in MADE if file.parent.name in ("dashboards", "rules")}


def test_a_value_that_nobody_explained_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"values\.yaml:3: gateway\.port is not explained"):
        read_values("gateway:\n  # A port\n  port: 1\n")


def test_every_value_is_explained_in_a_sentence_and_has_a_schema() -> None:
    explained = {value.path: value for value in read_values(VALUES)}
    assert len(explained) > 120
    assert [path for path, value in explained.items() if len(value.says) < 4] == []
    assert set(explained) <= {".".join(path) for path, _ in leaves(schema_of([*explained.values()]))}


def test_every_setting_that_can_be_set_is_explained() -> None:
    assert all(each["description"] for each in config_schema(GatewaySettings)["properties"].values())


def test_the_page_has_every_value_and_every_setting() -> None:
    page = (CHART / "README.md").read_text("utf-8")
    assert [value.path for value in read_values(VALUES) if f"| `{value.path}` |" not in page] == []
    assert "| `gateway.config.max_turns` | `512` |" in page


def test_tables_go_between_their_marks() -> None:
    assert with_tables("a\n<!-- t -->\nold\n<!-- /t -->\nb", {"t": "new"}) == "a\n<!-- t -->\nnew\n<!-- /t -->\nb"


def _flat(data: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(data, dict):
        return [(path, data)]
    return [pair for name, each in data.items() for pair in _flat(each, (*path, name))]


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replicaCount": 2}}, "replicaCount"),
        ({"gateway": {"config": {"max_turn": 3}}}, "max_turn"),
        ({"gateway": {"config": {"redis_url": "redis://:secret@there:6379"}}}, "redis_url"),
        ({"gateway": {"config": {"ladder": {"warm": 3}}}}, "warm"),
        ({"selector": {"config": {"samples": 0}}}, "samples"),
        ({"selector": {"config": {"strategy": "guess"}}}, "strategy"),
        ({"engine": {"gpu": {"count": "two"}}}, "count"),
        ({"engine": {"gpu": {"count": 0}}}, "count"),
        ({"images": {"service": "agentflux/service:latest"}}, "images.service"),
        ({"images": {"service": "Agent Flux"}}, "images.service"),
        ({"storage": {"models": {"size": "big"}}}, "storage.models.size"),
        ({"storage": {"adapters": {"accessModes": ["ReadWriteSometimes"]}}}, "accessModes"),
        ({"observability": {"logLevel": "loud"}}, "logLevel"),
        ({"observability": {"otlpEndpoint": "collector:4318"}}, "otlpEndpoint"),
        ({"trainer": {"profile": "huge"}}, "profile"),
        ({"sandbox": {"autoscaling": {"kind": "hpa"}}}, "autoscaling"),
        ({"sandbox": {"driver": "none"}}, "driver"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else given,
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], said: str, major: int) -> None:
    with pytest.raises(Refused) as refused:
        render(values, major=major)
    # The majors write a path as a.b and as /a/b.
    told = str(refused.value)
    assert "schema" in told
    assert said in told.replace("/", ".")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sandbox": {"tls": {"serverSecret": "server"}}}, "serverSecret and clientSecret go together; set both or none"),
        ({"networkPolicy": {"enabled": False}}, "every pod of the cluster could run tools; set sandbox.tls, or"),
        ({"auth": {"apiKey": ""}}, "everybody could do everything; name at least one"),
        ({"auth": {"keysFile": "keys.yaml"}}, "auth.keysFile names a key of auth.existingSecret, which is empty"),
        ({"gateway": {"autoscaling": {"kind": "hpa", "minReplicas": 9}}}, r"maxReplicas \(4\) is less than minReplicas \(9\)"),
        ({"gateway": {"autoscaling": {"kind": "hpa", "cpuPercent": 0}}}, "kind hpa needs cpuPercent or podMetrics"),
        ({"gateway": {"autoscaling": {"kind": "keda", "triggers": []}}}, "kind keda needs triggers"),
        ({"storage": {"trajectories": {"enabled": True}}, "sandbox": {"replicas": 2}}, "one at a time writes .* replicas is 2"),
        ({"model": {"fromImage": True}, "storage": {"models": {"enabled": False}}}, "storage.models, which is not enabled"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_the_next_step(values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        render(values)


def test_no_default_is_a_password() -> None:
    assert not re.search(r"password|secret", " ".join(str(value) for _, value in _flat(yaml.safe_load(VALUES))), re.IGNORECASE)


def test_another_chart_may_have_globals_of_its_own() -> None:
    assert render({"global": {"theirs": 1}})
