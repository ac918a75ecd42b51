"""What a training tells while it runs, scraped as Prometheus does it, and what is known of it afterwards."""

from __future__ import annotations

import argparse
import math
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.tools import BOARD
from services.shared.clients.adapters import AdapterStore
from services.shared.clients.releases import ReleaseMetrics
from services.shared.contracts.errors import Unavailable
from tests.observability.promql import metrics_of
from tests.trainer.rows_of import TOOLS, call, conversation, result, turn
from tests.trainer.tiny_world import PROFILE, make_world, talks
from trainer.__main__ import address
from trainer.dataset import HELDOUT_TRAJECTORIES
from trainer.episodes import write_rows
from trainer.metrics import MOST_ADAPTERS, TrainMetrics, recorded
from trainer.pipeline import Plan, run
from trainer.progress import Tick, silent
from trainer.publish import GateRefused
from trainer.queries import HELDOUT
from trainer.trajectories import TRAJECTORIES

Samples = dict[tuple[str, str], float]
"""Values by name and the values of labels, in the order of their names."""


def samples(page: str) -> Samples:
    found = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return {(sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value for sample in found}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run that was killed before its dataset was made."""
    make_world(tmp_path / "model")
    work = tmp_path / "work"
    work.mkdir()
    (work / HELDOUT).touch()
    broken = conversation(turn(call("no_such_tool")), result("x"), asked="Do what nobody can", id="broken")
    write_rows(work / TRAJECTORIES, [*talks(), broken])
    write_rows(work / HELDOUT_TRAJECTORIES, [conversation(asked="Good evening", id="evening", kind="chat")])
    profile = replace(PROFILE, epochs=1, max_tokens=1000)
    return Plan("files", TOOLS, tmp_path, tmp_path / "model", work, profile, seed=0, evaluated=1)


@pytest.mark.real
def test_a_scrape_while_it_trains_has_everything_that_the_board_shows(plan: Plan, tmp_path: Path) -> None:
    metrics = TrainMetrics("files")
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    scrapes: dict[str, Samples] = {}

    @contextmanager
    def bar(name: str) -> Iterator[Tick]:
        def tick(done: int, total: int) -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as reply:
                scrapes[name] = samples(reply.read().decode())

        tick(0, 0)
        yield tick

    store = tmp_path / "store"
    try:
        with recorded(AdapterStore(store), "files"):
            run(plan, store, metrics.watched(bar), metrics, force=True)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert list(scrapes)[:4] == ["dataset", "load", "train select", "train joint"]
    assert list(scrapes)[-1] == "publish"
    live = scrapes["train joint"]
    asked = {name for panel in BOARD.panels for query, _ in panel.queries for name in metrics_of(query)}
    missing = {name for name in asked if name.startswith("agentflux_train_")} - {name for name, _ in live}
    # These two are told by the services that follow the store, and where something was too long.
    assert missing == {"agentflux_train_last_timestamp_seconds", "agentflux_train_too_long_rows"}
    assert live["agentflux_train_step", "train files"] == 1
    assert live["agentflux_train_step", "dataset files"] == 0
    assert live["agentflux_train_tokens_total", "select"] > 100
    assert 0 < live["agentflux_train_loss_nats", "joint"] < 20
    assert live["agentflux_train_rows", "select"] > 10
    assert live["agentflux_train_dropped_trajectories", "tool"] == 1
    assert live["agentflux_train_trajectories", "train"] > 10
    assert live["process_resident_memory_bytes", ""] > 1 << 26
    assert live["agentflux_train_gpu_memory_bytes", ""] >= 0
    assert AdapterStore(store).trainings()["files"].published > AdapterStore(store).trainings()["files"].started > 0


def value(metrics: TrainMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"agentflux_train_{name}", labels)


def test_a_step_tells_how_far_it_is_and_how_long_it_still_takes() -> None:
    metrics = TrainMetrics("files")
    with metrics.watched(silent)("train select") as tick:
        assert value(metrics, "step", toolset="files", step="train") == 1
        assert math.isnan(value(metrics, "step_remaining_seconds") or 0)
        # It goes on after 50 of 100, so one tick says nothing of its pace.
        tick(50, 100)
        assert value(metrics, "step_done_ratio") == 0.5
        assert math.isnan(value(metrics, "step_remaining_seconds") or 0)
        tick(99, 100)
        late = value(metrics, "step_remaining_seconds")
        tick(100, 100)
        assert (late or 0) > 0 == value(metrics, "step_remaining_seconds")
    with metrics.watched(silent)("arguments, base"):
        assert value(metrics, "step", toolset="files", step="train") == 0
        assert value(metrics, "step", toolset="files", step="arguments") == 1
        assert math.isnan(value(metrics, "step_done_ratio") or 0)


def test_an_adapter_for_each_of_a_thousand_tools_does_not_make_a_thousand_series() -> None:
    metrics = TrainMetrics("files")
    for number in range(1000):
        metrics.batch(f"tool_{number}", 10, 1.0)
    assert value(metrics, "tokens_total", adapter="tool_0") == 10
    assert value(metrics, "tokens_total", adapter="other") == 10 * (1000 - MOST_ADAPTERS)


@pytest.mark.parametrize(("ending", "event"), [(GateRefused("no better"), "refused"), (SystemExit(143), "failed")])
def test_how_a_training_ended_outlives_it(tmp_path: Path, ending: BaseException, event: str) -> None:
    store = AdapterStore(tmp_path / "store")
    with pytest.raises(type(ending)), recorded(store, "files"):
        raise ending
    known = store.trainings()["files"].model_dump()
    assert {name for name, moment in known.items() if moment >= known["started"]} == {"started", event}
    # As a service that follows the store shows it.
    registry, shown = CollectorRegistry(), ReleaseMetrics()
    shown.register(registry)
    shown.trained("files", store.trainings()["files"])
    labels = {"toolset": "files", "event": event}
    assert registry.get_sample_value("agentflux_train_last_timestamp_seconds", labels) == known[event]


def test_a_store_that_cannot_be_written_ends_a_training_before_it_begins(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    # Not by mode: the tests may run as root.
    (store / ".staging").touch()
    with pytest.raises(Unavailable, match="cannot be written"), recorded(AdapterStore(store), "files"):
        pytest.fail("it began")


@pytest.mark.parametrize("content", ["", "{", '{"started": -1}', '{"started": NaN}', "[]"])
def test_a_record_that_cannot_be_read_stops_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "files.training.json").write_text(content)
    store = AdapterStore(tmp_path)
    assert store.trainings()["files"].started == 0
    store.record_training("files", "published")
    assert store.trainings()["files"].published > 0
    assert (store.manifests(), store.problems(), store.adapters()) == ({}, {}, [])


def test_where_to_listen_is_a_host_and_a_port() -> None:
    assert address("127.0.0.1:9036") == ("127.0.0.1", 9036)
    assert address("[::1]:9036") == ("::1", 9036)
    for text in ("9036", ":9036", "localhost", "host:0", "host:65536", "host:٩"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT"):
            address(text)
