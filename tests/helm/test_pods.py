"""Every pod, of whatever kind of object, comes from one template: restricted, bounded, probed, and left in peace to end."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from services.engine.process import _TEARDOWN_S
from services.shared.chassis.settings import ServiceSettings
from tests.helm.helm import CHART, REPOSITORY, render
from tests.helm.manifests import EVERYTHING, FILES, Pod, of_kind, pod_of, pods

EVERY_POD = [pod for given in ({}, EVERYTHING) for pod in pods(render(given))]
EVERY_POD += [pod for file in FILES for pod in pods(render(files=(file,)))]
BY_KIND = {(pod.kind, pod.component): pod for pod in pods(render(EVERYTHING))}
SERVERS = [pod for pod in BY_KIND.values() if pod.kind in ("Deployment", "StatefulSet")]
# What the restricted standard allows, as https://kubernetes.io/docs/concepts/security/pod-security-standards lists it.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def ids(pod: Pod) -> str:
    return f"{pod.kind}-{pod.component}"


def test_all_kinds_of_pods_are_looked_at() -> None:
    assert set(BY_KIND) == {
        *(("Deployment", name) for name in ("gateway", "selector", "arguments", "callcache", "sandbox")),
        ("StatefulSet", "engine"),
        ("StatefulSet", "valkey"),
        ("Job", "trainer"),
        ("CronJob", "trainer"),
        ("Job", "prepare"),
        ("Pod", "test"),
    }


@pytest.mark.parametrize("pod", BY_KIND.values(), ids=ids)
def test_pod_security_is_restricted(pod: Pod) -> None:
    whole, own = pod.spec["securityContext"], pod.container["securityContext"]
    assert whole["runAsNonRoot"] is own["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == own["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod.spec)
    assert all(set(volume) - {"name"} <= VOLUMES for volume in pod.spec["volumes"])
    assert not any("hostPort" in port for port in pod.container.get("ports", []))


@pytest.mark.parametrize("pod", BY_KIND.values(), ids=ids)
def test_no_pod_can_ask_the_cluster_or_inherits_services_as_variables(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False


def test_the_user_can_be_left_to_the_platform() -> None:
    context = pod_of(render({"defaults": {"runAsUser": None}}), "gateway").spec["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize("pod", EVERY_POD, ids=ids)
def test_an_image_is_always_the_same_image(pod: Pod) -> None:
    assert re.search(r"(:v?\d+\.\d+\.\d+[^:@]*)?@sha256:[0-9a-f]{64}$|:v?\d+\.\d+\.\d+[^:@]*$", pod.container["image"])
    assert pod.container["imagePullPolicy"] == "IfNotPresent"


def test_an_image_by_digest_keeps_it_and_a_registry_is_put_before_all() -> None:
    digest = f"agentflux/service@sha256:{'0' * 64}"
    objects = render(
        {"images": {"service": digest}, "global": {"imageRegistry": "mirror:5000/team", "imagePullSecrets": ["pull"]}}
    )
    assert pod_of(objects, "gateway").container["image"] == f"mirror:5000/team/{digest}"
    assert pod_of(objects, "engine").container["image"] == "mirror:5000/team/agentflux/engine:0.1.0-gpu"
    assert {str(pod.spec["imagePullSecrets"]) for pod in pods(objects)} == {"[{'name': 'pull'}]"}


def test_images_are_those_of_compose() -> None:
    compose = (REPOSITORY / "docker-compose.yml").read_text("utf-8")
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    missing = [image for image in values["images"].values() if f" {image}:$" not in compose and f"-{image}}}" not in compose]
    assert missing == []


@pytest.mark.parametrize("pod", EVERY_POD, ids=ids)
def test_requests_lie_within_limits(pod: Pod) -> None:
    requests, limits = pod.container["resources"].get("requests", {}), pod.container["resources"].get("limits", {})
    assert "memory" in requests
    assert "cpu" in requests
    assert [name for name in requests if name in limits and amount(requests[name]) > amount(limits[name])] == []


def amount(quantity: str | int) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi)?", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 0.001, "Mi": 2**20, "Gi": 2**30, None: 1}[unit]


@pytest.mark.parametrize("pod", SERVERS, ids=ids)
def test_whoever_serves_is_probed_where_it_answers(pod: Pod) -> None:
    named = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
    probes = {name: pod.container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    asked = {name: probe.get("httpGet") or probe.get("tcpSocket") or probe.get("grpc") for name, probe in probes.items()}
    assert all(where is None or where["port"] in (*named, *named.values()) for where in asked.values())
    if "http" in named:
        assert [where["path"] for where in asked.values()] == ["/livez", "/livez", "/readyz"]


def test_the_sandbox_is_asked_without_certificates_whether_or_not_its_callers_need_them() -> None:
    plain, tls = pod_of(render(), "sandbox"), BY_KIND["Deployment", "sandbox"]
    assert "AGENTFLUX_SANDBOX_TLS_CLIENT_CA" in tls.env.keys() - plain.env.keys()
    for pod in (plain, tls):
        assert pod.env["AGENTFLUX_SANDBOX_METRICS_PORT"] == "9034"
        assert {"name": "metrics", "containerPort": 9034, "protocol": "TCP"} in pod.container["ports"]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert pod.container[probe]["httpGet"] == {"path": path, "port": "metrics"}


@pytest.mark.parametrize("pod", SERVERS, ids=ids)
def test_readiness_waits_longer_than_a_check_may_take(pod: Pod) -> None:
    from services.shared.chassis.http import CHECK_TIMEOUT_S

    assert pod.container["readinessProbe"]["timeoutSeconds"] > CHECK_TIMEOUT_S


@pytest.mark.parametrize("component", ["gateway", "selector", "arguments", "callcache", "sandbox", "engine"])
def test_a_pod_has_as_long_to_end_as_its_drain_takes(component: str) -> None:
    teardown = _TEARDOWN_S if component == "engine" else 0
    usual = pod_of(render(), component).spec
    assert usual["terminationGracePeriodSeconds"] == 5 + ServiceSettings.model_fields["drain_timeout_s"].default + teardown + 10
    asked: dict[str, Any] = {component: {"preStopSeconds": 20, "config": {"drain_timeout_s": 90.5}}}
    longer = pod_of(render(asked), component)
    assert longer.spec["terminationGracePeriodSeconds"] == 20 + 91 + teardown + 10
    assert longer.container["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "20"]}}}


@pytest.mark.parametrize("pod", EVERY_POD, ids=ids)
def test_every_mount_has_its_volume(pod: Pod) -> None:
    volumes = [volume["name"] for volume in pod.spec["volumes"]]
    assert sorted(mount["name"] for mount in pod.container["volumeMounts"]) == sorted(volumes)
    assert len(set(volumes)) == len(volumes)


@pytest.mark.parametrize("pod", BY_KIND.values(), ids=ids)
def test_only_who_makes_models_and_adapters_can_write_them(pod: Pod) -> None:
    writable = {mount["mountPath"] for mount in pod.container["volumeMounts"] if not mount.get("readOnly")}
    expected = {"trainer": {"/adapters"}, "prepare": {"/adapters", "/models"}}.get(pod.component, set())
    assert writable & {"/adapters", "/models"} == expected


@pytest.mark.parametrize("name", ["models", "adapters", "workspace", "trajectories", "decisions", "work"])
def test_claims_are_made_unless_there_is_one_and_are_kept(name: str) -> None:
    made = of_kind(render(EVERYTHING), "PersistentVolumeClaim")[f"agentflux-{name}"]
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    given = {**EVERYTHING, "storage": {**EVERYTHING["storage"], name: {"enabled": True, "existingClaim": "mine"}}}
    if name in ("models", "adapters"):
        del given["storage"][name]["enabled"]
    objects = render(given)
    assert f"agentflux-{name}" not in of_kind(objects, "PersistentVolumeClaim")
    assert "'claimName': 'mine'" in str([pod.spec["volumes"] for pod in pods(objects)])


def test_an_engine_gets_its_gpus_and_shared_memory() -> None:
    gpu = {"count": 2, "resourceName": "nvidia.com/mig-3g.40gb"}
    node = {"nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "gpu"}], "runtimeClassName": "nvidia"}
    engine = pod_of(render({"engine": {"gpu": gpu, "shmSize": "3Gi", **node}}), "engine")
    assert engine.container["resources"]["limits"]["nvidia.com/mig-3g.40gb"] == 2
    assert engine.env["AGENTFLUX_ENGINE_EXTRA_ARGS"] == "--tensor-parallel-size 2"
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "3Gi"}} in engine.spec["volumes"]
    assert {name: engine.spec[name] for name in node} == node


def test_the_trainer_whose_torch_is_for_processors_asks_for_no_gpu_unless_told() -> None:
    for file in FILES:
        for pod in pods(render({"trainer": {"run": "filesystem"}}, files=(file,))):
            if pod.component == "trainer":
                assert not any("/" in name for name in pod.container["resources"]["limits"])
    given = {"trainer": {"run": "filesystem", "resources": {"limits": {"nvidia.com/gpu": 1}}}}
    assert pod_of(render(given), "trainer").container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_an_engine_without_gpu_asks_for_none() -> None:
    engine = pod_of(render(files=("values-kind.yaml",)), "engine")
    assert engine.container["image"].endswith("-cpu")
    assert not any("/" in name for name in engine.container["resources"]["limits"])


def test_what_is_set_for_a_component_counts_more_than_the_defaults_also_when_it_is_nothing() -> None:
    given = {
        "defaults": {"tolerations": [{"key": "a"}], "priorityClassName": "high", "podLabels": {"team": "a"}, "replicas": 3},
        "gateway": {"tolerations": [], "priorityClassName": "", "podLabels": {"tier": "b"}, "replicas": 0, "preStopSeconds": 0},
    }
    objects = render(given)
    gateway, selector = pod_of(objects, "gateway"), pod_of(objects, "selector")
    assert not {"tolerations", "priorityClassName"} & set(gateway.spec)
    assert "lifecycle" not in gateway.container
    assert gateway.labels["team"] + gateway.labels["tier"] == "ab"
    assert selector.spec["priorityClassName"] == "high"
    replicas = {name: each["spec"]["replicas"] for name, each in of_kind(objects, "Deployment").items()}
    assert (replicas["agentflux-gateway"], replicas["agentflux-selector"]) == (0, 3)


def test_the_charts_labels_cannot_be_overridden() -> None:
    gateway = of_kind(render({"gateway": {"podLabels": {"team": "a"}}}), "Deployment")["agentflux-gateway"]["spec"]
    assert gateway["selector"]["matchLabels"].items() <= gateway["template"]["metadata"]["labels"].items()
    assert "team" not in gateway["selector"]["matchLabels"]


def test_pods_are_spread_with_their_own_kind_only() -> None:
    for pod in SERVERS:
        for constraint in pod.spec["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"].items() <= pod.labels.items()
            assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == pod.component


def test_every_service_and_disruption_budget_finds_its_pods() -> None:
    objects = render(EVERYTHING)
    lasting = [pod for pod in pods(objects) if pod.kind in ("Deployment", "StatefulSet")]
    training = pod_of(objects, "trainer")
    for kind, path in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels"))):
        for name, each in of_kind(objects, kind).items():
            wanted = each["spec"]
            for part in path:
                wanted = wanted[part]
            found = [pod for pod in (*lasting, training) if wanted.items() <= pod.labels.items()]
            assert [f"agentflux-{pod.component}" for pod in found] == [name]


def test_a_training_is_another_job_when_anything_of_it_changes() -> None:
    def job(**trainer: Any) -> str:
        return next(iter(of_kind(render({"trainer": {"run": "filesystem", **trainer}}), "Job")))

    assert job() == job()
    assert len({job(), job(profile="paper"), job(run="other"), job(threads=8)}) == 4


def test_the_trainer_knows_every_argument() -> None:
    # Read, not run: the program imports torch first.
    known = re.findall(r'add_argument\("(--[a-z-]+)"', (REPOSITORY / "trainer" / "__main__.py").read_text("utf-8"))
    for pod in (BY_KIND["Job", "trainer"], BY_KIND["CronJob", "trainer"]):
        program, *arguments = pod.container["command"][2:]
        assert program == "trainer"
        assert {each for each in arguments if each.startswith("--")} <= set(known)
        assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
            "--toolset": "filesystem", "--profile": "small", "--store": "/adapters", "--model": "/models/base",
            "--work": "/work", "--threads": "4", "--toolsets-dir": "/toolsets", "--metrics": "0.0.0.0:9036",
        }  # fmt: skip
