"""What is published serves, and what is not better is not published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import WEIGHTS_FILE
from services.shared.contracts.errors import AdapterRefused
from services.shared.contracts.tools import tools_digest
from tests.fakes import CHATML
from tests.trainer.rows_of import TOOLS
from tests.trainer.test_training import PROFILE, job
from trainer.evaluate import compared
from trainer.publish import GateRefused, Origin, Trained, publish, verdict
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
    assert gate["reasons"]


def test_a_selector_that_calls_tools_for_everything_is_refused() -> None:
    figures = {**numbers(90, 20), "answered_in_text": numbers(50, 80)["answered_in_text"]}
    assert verdict(figures, ["selector"]) == ["answered_in_text: 50.0%, the base model has 80.0%"]


def test_a_truncated_file_is_refused(trained: list[Trained], origin: Origin, tmp_path: Path) -> None:
    weights = trained[0].folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterRefused):
        publish(trained, origin, numbers(90, 20), tmp_path / "store")
