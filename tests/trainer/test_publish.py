"""What is published serves, and what is not better is not published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import WEIGHTS_FILE
from services.shared.contracts.errors import AdapterRefused
from services.shared.contracts.tools import tools_digest
from tests.fakes import CHATML
from tests.trainer.outcomes_of import ANSWER, outcomes
from tests.trainer.rows_of import TOOLS
from tests.trainer.test_training import PROFILE, job
from trainer.figures import compared, figures
from trainer.publish import GateRefused, Origin, Trained, publish, serving, verdict
from trainer.rows import TrainRow
from trainer.training import Job, train

NAMES = (
    "selection_first_turn", "selection_later_turns", "answered_in_text", "outside_the_toolset", "arguments_exact",
)  # fmt: skip


def numbers(after: int, before: int, of: int = 100) -> Any:
    rows = range(of)
    return {name: compared([i < after for i in rows], [i < before for i in rows], rows) for name in NAMES}


@pytest.fixture
def origin(base: Any, tokenizer: Any, tmp_path: Path) -> Origin:
    model = tmp_path / "model"
    base.save_pretrained(model)
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (model / "chat_template.jinja").write_text(CHATML)
    return Origin("files", TOOLS, model, "compact", seed=0)


@pytest.fixture
def trained(base: Any, rows: list[TrainRow], tmp_path: Path) -> list[Trained]:
    jobs = [job(rows), Job("joint", "joint", None, rows[:2])]
    return [
        Trained(train(base, one, PROFILE, tmp_path, seed=0), one.role, one.tool, PROFILE.rank, one.data_sha256) for one in jobs
    ]


def test_better_adapters_are_published_and_serve(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    release = publish(trained, origin, numbers(90, 20), tmp_path / "store", note="first")
    store = AdapterStore(tmp_path / "store")
    serving = store.manifest("files")
    assert serving is not None
    assert serving.current == release
    assert release.adapters.selector is not None
    assert list(release.adapters.arguments) == ["read_file", "tag"]
    card = store.verify(release.adapters.selector)
    assert (card.role, card.prompt_profile, card.tools_digest) == ("selector", "compact", tools_digest(TOOLS))
    assert card.gate["passed"] is True
    config = json.loads((tmp_path / "store" / card.name / "adapter_config.json").read_text())
    assert config["alora_invocation_tokens"] is None


def test_an_activated_adapter_carries_its_tokens_on_the_card(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    activated = Origin(origin.toolset, origin.tools, origin.model_dir, "compact", 0, activation=[7, 8])
    release = publish(trained, activated, numbers(90, 20), tmp_path / "store")
    assert release.adapters.selector is not None
    assert AdapterStore(tmp_path / "store").verify(release.adapters.selector).activation_tokens == [7, 8]


@pytest.mark.parametrize(("after", "before"), [(20, 20), (10, 20), (24, 20)])
def test_what_is_not_better_beyond_noise_is_refused(
    after: int, before: int, trained: list[Trained], origin: Origin, tmp_path: Path
) -> None:
    with pytest.raises(GateRefused, match="selection_first_turn"):
        publish(trained, origin, numbers(after, before), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_force_is_recorded(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    release = publish(trained, origin, numbers(20, 20), tmp_path / "store", force=True)
    assert release.adapters.selector is not None
    gate = AdapterStore(tmp_path / "store").verify(release.adapters.selector).gate
    assert (gate["passed"], gate["forced"]) == (False, True)
    assert gate["reasons"] == verdict(numbers(20, 20), ["arguments", "selector"])


def test_a_selector_that_calls_tools_for_everything_is_refused() -> None:
    entries = {**numbers(90, 20), "answered_in_text": numbers(50, 80)["answered_in_text"]}
    assert verdict(entries, ["selector"]) == ["answered_in_text: 50.0%, the base model has 80.0%"]


def test_a_floor_holds_however_bad_the_base_model_is() -> None:
    entries = {**numbers(90, 20), "arguments_exact": numbers(35, 0)["arguments_exact"]}
    assert verdict(entries, ["selector", "arguments"]) == ["arguments_exact: 35.0%, at least 40% has to be right"]
    assert verdict(entries, ["selector"]) == []


def test_a_figure_without_held_out_rows_is_no_reason_to_publish() -> None:
    entries = {**numbers(90, 20), "selection_later_turns": compared([], [], [])}
    assert "selection_later_turns" in verdict(entries, ["selector"])[0]


def against(skill: float, published: float, *, seed: int = 0) -> list[str]:
    """The verdict on adapters of that skill where others serve."""
    of = 400
    after, serving = (outcomes(share, rows=of, seed=at) for share, at in ((skill, 2 * seed), (published, 2 * seed + 1)))
    return verdict(figures(after, outcomes(0.1, rows=of), ANSWER, published=serving), ["arguments", "selector"])


def test_better_than_the_base_model_is_not_enough_where_adapters_serve() -> None:
    assert against(0.95, 0.75) == []
    [*_, nothing] = against(0.8, 0.8)
    assert nothing.startswith("none of arguments_exact, selection_first_turn, selection_later_turns is better")
    assert any("the published adapters have" in reason for reason in against(0.75, 0.95))


def test_better_at_one_thing_and_worse_at_another_is_refused() -> None:
    entries = {**numbers(90, 20), "arguments_exact": compared([True] * 80 + [False] * 20, [False] * 100, range(100))}
    for name, share in (("selection_first_turn", 60), ("arguments_exact", 99)):
        right = [True] * entries[name]["right"] + [False] * (100 - entries[name]["right"])
        entries[name] = compared(right, [False] * 100, range(100), [True] * share + [False] * (100 - share))
    assert verdict(entries, ["selector"]) == []
    assert verdict(entries, ["arguments", "selector"]) == ["arguments_exact: 80.0%, the published adapters have 99.0%"]


def test_adapters_that_differ_by_noise_only_do_not_replace_each_other() -> None:
    refused = [bool(against(0.85, 0.85, seed=seed)) for seed in range(40)]
    assert sum(refused) >= 38


def test_what_serves_is_found_to_be_compared_with(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert serving(origin, store) is None
    activated = replace(origin, activation=[7, 8])
    release = publish(trained, activated, numbers(90, 20), store)
    found = serving(origin, store)
    assert found is not None
    assert (found.release, found.activation) == (1, (7, 8))
    assert [(one.role, one.folder.name) for one in found.adapters] == [
        ("selector", release.adapters.selector), ("joint", release.adapters.arguments["read_file"]),
    ]  # fmt: skip


def test_what_was_made_for_other_tools_or_is_damaged_is_not_compared_with(
    trained: list[Trained], origin: Origin, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    release = publish(trained, origin, numbers(90, 20), store)
    assert serving(replace(origin, tools=TOOLS[:2]), store) is None
    assert serving(replace(origin, prompt_profile="full"), store) is None
    (store / str(release.adapters.selector) / WEIGHTS_FILE).chmod(0o644)
    (store / str(release.adapters.selector) / WEIGHTS_FILE).write_bytes(b"x")
    assert serving(origin, store) is None


def test_a_truncated_file_is_refused(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    weights = trained[0].folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterRefused):
        publish(trained, origin, numbers(90, 20), tmp_path / "store")
