"""Each alert fires when it should and is silent when it should, by promtool; each has its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.plan import REPOSITORY

PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yaml"
RUNBOOKS = REPOSITORY / "deploy" / "runbooks" / "README.md"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
}

REQUESTS = 'agentflux_request_duration_seconds_count{route="/v1/chat/completions",status="%s"}'


@dataclass(frozen=True)
class Case:
    """Series (promtool's notation, a value a minute) with which an alert fires after `minutes`, and with which it does not.

    `labels` are those of the alert that fires, beside its severity and its deployment.
    """

    fires: dict[str, str]
    silent: dict[str, str]
    minutes: int = 60
    labels: dict[str, str] = field(default_factory=dict)


def rising(per_minute: float, minutes: int = 120) -> str:
    return f"0+{per_minute}x{minutes}"


def steady(value: float, minutes: int = 120) -> str:
    return f"{value}+0x{minutes}"


def histogram(metric: str, slow: float, fast: float, *, limit: str, labels: str = "") -> dict[str, str]:
    """A histogram in which `slow` measurements a minute are above `limit`, and `fast` ones below."""
    with_le = {le: metric + "_bucket{" + ",".join(filter(None, [labels, f'le="{le}"'])) + "}" for le in (limit, "60", "+Inf")}
    return {with_le[limit]: rising(fast), with_le["60"]: rising(fast + slow), with_le["+Inf"]: rising(fast + slow)}


def requests(good: float, bad: float, minutes: int = 500) -> dict[str, str]:
    return {REQUESTS % "200": rising(good, minutes), REQUESTS % "503": rising(bad, minutes)}


def trained(event: str, toolset: str = "files") -> str:
    return f'agentflux_train_last_timestamp_seconds{{toolset="{toolset}",event="{event}"}}'


def calls(ok: float, tool_error: float) -> dict[str, str]:
    name = 'agentflux_sandbox_call_duration_seconds_count{toolset="files",outcome="%s"}'
    return {name % "ok": rising(ok), name % "tool_error": rising(tool_error)}


# Two deployments that one Prometheus scrapes, and what it scrapes of people who have none.
OURS, ANOTHER = "agents/one", "agents/two"
STRANGERS = {
    'up{job="kube-proxy"}': steady(0),
    'scrape_samples_scraped{job="apiserver"}': steady(90_000),
    'vllm:num_requests_waiting{job="chat"}': steady(9),
}
ENGINE = 'agentflux_engine_up{job="selector",engine="%s"}'
ARGUMENTS = 'agentflux_arguments_total{outcome="%s"}'
LOOP = "agentflux_event_loop_lag_seconds"
ON_LOOP = 'job="gateway",instance="g"'
CERTIFICATE = 'agentflux_certificate_not_%s_timestamp_seconds{file="%s"}'
MARGIN = {"sum": "agentflux_vote_margin_ratio_sum", "count": "agentflux_vote_margin_ratio_count"}
SURE = 6 * 60  # minutes of sure votes, before they become less sure

CASES = {
    "ServiceDown": Case({'up{job="gateway"}': steady(0)}, {'up{job="gateway"}': steady(1)}, labels={"job": "gateway"}),
    "ErrorBudgetBurnsFast": Case(requests(98, 2), requests(99, 1), minutes=90),
    "ErrorBudgetBurnsSlowly": Case(requests(99, 1), requests(99.7, 0.3), minutes=420),
    "FirstEventSlow": Case(
        histogram("agentflux_first_event_seconds", 6, 94, limit="5.12"),
        histogram("agentflux_first_event_seconds", 4, 96, limit="2.56"),
    ),
    "OverheadHigh": Case(
        histogram("agentflux_overhead_seconds", 6, 94, limit="0.05"), histogram("agentflux_overhead_seconds", 4, 96, limit="0.05")
    ),
    "EventLoopBlocked": Case(
        histogram(LOOP, 2, 98, limit="0.25", labels=ON_LOOP),
        histogram(LOOP, 0.5, 99.5, limit="0.25", labels=ON_LOOP),
        labels={"job": "gateway", "instance": "g"},
    ),
    "BreakerOpen": Case(
        {'agentflux_breaker_state{dependency="selector"}': steady(2)},
        {'agentflux_breaker_state{dependency="selector"}': steady(1)},
        labels={"dependency": "selector"},
    ),
    "RequestsRefused": Case(
        {'agentflux_refused_total{reason="full"}': rising(10)},
        {'agentflux_refused_total{reason="full"}': rising(1), 'agentflux_refused_total{reason="invalid_api_key"}': rising(99)},
        labels={"reason": "full"},
    ),
    "LimitsNotCounted": Case(
        {"agentflux_limits_unavailable_total": rising(1)}, {"agentflux_limits_unavailable_total": steady(7)}
    ),
    "SeriesNearCap": Case(
        {'scrape_samples_scraped{job="gateway"}': steady(4500)},
        {'scrape_samples_scraped{job="gateway"}': steady(3900)},
        labels={"job": "gateway"},
    ),
    "VoteMarginDropped": Case(
        # Exact in binary: a sum that loses its last bit would look like a counter that began anew.
        {MARGIN["sum"]: f"0+0.875x{SURE} {0.875 * SURE}+0.5x240", MARGIN["count"]: rising(1, SURE + 240)},
        {MARGIN["sum"]: f"0+0.875x{SURE} {0.875 * SURE}+0.8125x240", MARGIN["count"]: rising(1, SURE + 240)},
        minutes=SURE + 180,
    ),
    "SchemaValidLow": Case(
        {ARGUMENTS % "first_try": rising(97), ARGUMENTS % "repaired": rising(3)},
        {ARGUMENTS % "first_try": rising(99), ARGUMENTS % "invalid": rising(1)},
    ),
    "FallbacksHigh": Case(
        {
            'agentflux_fallbacks_total{reason="no_adapter"}': rising(6),
            'agentflux_turn_selections_total{toolset="files",tool="read"}': rising(100),
        },
        {
            'agentflux_fallbacks_total{reason="unregistered"}': rising(50),
            'agentflux_fallbacks_total{reason="no_adapter"}': rising(4),
            'agentflux_turn_selections_total{toolset="files",tool="read"}': rising(100),
        },
    ),
    "LoopsBlocked": Case(
        {'agentflux_turns_total{outcome="stopped"}': rising(3), 'agentflux_turns_total{outcome="answer"}': rising(97)},
        {'agentflux_turns_total{outcome="stopped"}': rising(1), 'agentflux_turns_total{outcome="answer"}': rising(99)},
    ),
    "UnknownTool": Case({"agentflux_unknown_tool_total": rising(1)}, {"agentflux_unknown_tool_total": steady(0)}),
    "JudgedWrong": Case(
        {'agentflux_feedback_total{toolset="files",correct="false"}': rising(1)},
        {
            'agentflux_feedback_total{toolset="files",correct="true"}': rising(9),
            'agentflux_feedback_total{toolset="files",correct="false"}': rising(1),
        },
        minutes=119,
        labels={"toolset": "files"},
    ),
    "ToolErrorsHigh": Case(calls(7, 3), calls(9, 1), labels={"toolset": "files"}, minutes=90),
    "NoHealthyEngine": Case(
        {ENGINE % "a": steady(0), ENGINE % "b": steady(0)},
        {ENGINE % "a": steady(0), ENGINE % "b": steady(1)},
        labels={"job": "selector"},
    ),
    "EngineRestarts": Case(
        {"agentflux_engine_restarts_total": rising(0.2)}, {"agentflux_engine_restarts_total": "0+0x45 1+0x60"}
    ),
    "EngineQueues": Case({"vllm:num_requests_waiting": steady(3)}, {"vllm:num_requests_waiting": "3 3 0 0 " * 30}),
    "ReleaseRefused": Case(
        {'agentflux_release_changes_total{toolset="files",outcome="refused"}': "0+0x50 1+0x60"},
        {'agentflux_release_changes_total{toolset="files",outcome="served"}': "0+0x50 1+0x60"},
        labels={"toolset": "files", "outcome": "refused"},
    ),
    "ReleaseOld": Case(
        # promtool's clock begins in 1970.
        {'agentflux_release_promoted_timestamp_seconds{toolset="files"}': steady(-91 * 86400)},
        {'agentflux_release_promoted_timestamp_seconds{toolset="files"}': steady(-80 * 86400)},
        labels={"toolset": "files"},
        minutes=90,
    ),
    "TrainingFailed": Case(
        {trained("started"): steady(100), trained("published"): steady(50), trained("failed"): steady(200)},
        # The gate refused; of another toolset one began anew after it had failed.
        {
            **{trained("started"): steady(100), trained("refused"): steady(200), trained("failed"): steady(50)},
            **{trained("started", "git"): steady(300), trained("failed", "git"): steady(200)},
        },
        labels={"toolset": "files"},
    ),
    "SandboxNotServing": Case({"agentflux_sandbox_serving": steady(0)}, {"agentflux_sandbox_serving": steady(1)}),
    "CertificateEndsSoon": Case(
        # Of a year, with 13 days left; and two that are silent: of a year with 15 days left, and of a day with half of it left.
        {CERTIFICATE % ("after", "a.crt"): steady(13 * 86400), CERTIFICATE % ("before", "a.crt"): steady(-352 * 86400)},
        {
            CERTIFICATE % ("after", "a.crt"): steady(15 * 86400), CERTIFICATE % ("before", "a.crt"): steady(-350 * 86400),
            CERTIFICATE % ("after", "b.crt"): steady(86400 / 2), CERTIFICATE % ("before", "b.crt"): steady(-86400 / 2),
        },
        labels={"file": "a.crt"},
    ),
    "CertificateInvalid": Case(
        {CERTIFICATE % ("after", "a.crt"): steady(30 * 60), CERTIFICATE % ("before", "a.crt"): steady(-86400)},
        {CERTIFICATE % ("after", "a.crt"): steady(90 * 60), CERTIFICATE % ("before", "a.crt"): steady(-86400)},
        labels={"file": "a.crt"},
    ),
    "SandboxKills": Case(
        {'agentflux_sandbox_kills_total{toolset="files",reason="SERVER_DIED"}': rising(2), **calls(20, 0)},
        {'agentflux_sandbox_kills_total{toolset="files",reason="CANCELLED"}': rising(2), **calls(20, 0)},
        labels={"toolset": "files"},
    ),
    "CallCacheStoreDown": Case({"agentflux_callcache_store_up": steady(0)}, {"agentflux_callcache_store_up": steady(1)}),
    "DecisionsNotLogged": Case(
        {'agentflux_decision_log_rows_total{outcome="disk"}': rising(1)},
        {'agentflux_decision_log_rows_total{outcome="written"}': rising(9)},
        labels={"outcome": "disk"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    # Its Debian package would start a server; .ci/run takes only the program.
    assert found, (
        "promtool is missing: apt-get download prometheus; dpkg-deb -x prometheus_*.deb .; put usr/bin/promtool on the PATH"
    )
    return found


def test_every_alert_has_a_case_and_a_page() -> None:
    assert {f"Agentflux{name}" for name in CASES} == ALERTS.keys()
    pages = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sorted(pages) == sorted(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"deploy/runbooks/README.md#{name.lower()}"
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.parametrize("what", [["rules", "rules.yaml"], ["config", "prometheus.yml"]], ids=lambda what: what[0])
def test_promtool_accepts_the_files(promtool: str, what: list[str]) -> None:
    done = subprocess.run([promtool, "check", *what], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_scraped_as_one_of_this_deployment() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert len(jobs) == 8
    assert all({"target_label": "agentflux", "replacement": "compose"} in job["relabel_configs"] for job in jobs)


@pytest.mark.parametrize("shared", [False, True], ids=["a Prometheus of its own", "a shared one"])
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "is silent"])
def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path, fires: bool, shared: bool) -> None:
    tests = [_test(name, case, fires=fires, shared=shared) for name, case in CASES.items()]
    file, rules = tmp_path / "tests.yaml", tmp_path / "rules.yaml"
    text = RULES.read_text()
    # The chart's rules.
    rules.write_text(text.replace('agentflux=~".*"', 'agentflux!=""') if shared else text)
    file.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "2m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("hours", "fires"), [(23, False), (25, True)])
def test_a_training_that_never_said_how_it_ended_is_told_of_after_a_day(
    promtool: str, tmp_path: Path, hours: int, fires: bool
) -> None:
    minutes = hours * 60
    # In another toolset one is still at work.
    series = {
        trained(event, toolset): steady(moment, minutes)
        for toolset in ("files", "git")
        for event, moment in (("started", 60), ("published", 0), ("refused", 0), ("failed", 0))
    } | {'agentflux_train_step{toolset="git",step="train"}': steady(1, minutes)}
    case = Case(series, {} if fires else series, minutes=minutes, labels={"toolset": "files"})
    file = tmp_path / "tests.yaml"
    tests = [_test("TrainingFailed", case, fires=fires)]
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "10m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def _test(name: str, case: Case, *, fires: bool, shared: bool = False) -> dict[str, Any]:
    """Where Prometheus is shared, another deployment is silent beside ours, beside strangers; else nothing has the label."""
    alert = ALERTS[f"Agentflux{name}"]
    labels, series = {**alert["labels"], **case.labels}, case.fires if fires else case.silent
    if shared:
        labels["agentflux"] = OURS
        series = _of(OURS, series) | _of(ANOTHER, case.silent) | STRANGERS
    expected = {"exp_labels": labels, "exp_annotations": alert["annotations"]}
    at = {"eval_time": f"{case.minutes}m", "alertname": f"Agentflux{name}", "exp_alerts": [expected] if fires else []}
    return {
        "name": f"{name} {'fires' if fires else 'is silent'}",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [at],
    }


def _of(deployment: str, series: dict[str, str]) -> dict[str, str]:
    """The series as they are scraped of a deployment."""
    label = f'agentflux="{deployment}"'
    return {(one.replace("{", f"{{{label},") if "{" in one else f"{one}{{{label}}}"): values for one, values in series.items()}
