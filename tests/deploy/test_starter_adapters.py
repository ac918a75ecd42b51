"""The adapters that come with the repository belong to the toolset, the base model and the prompts that come with it, too."""

from __future__ import annotations

import json

import pytest

from deploy.local import base_model
from deploy.local.plan import REPOSITORY, LocalSettings
from services.shared.clients.adapters import AdapterStore, check_fit
from services.shared.contracts.adapters import AdapterCard
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool, tools_digest
from trainer.publish import verdict

STARTERS = AdapterStore(REPOSITORY / "deploy" / "adapters")
LARGEST_BYTES = 25_000_000


@pytest.fixture
def cards() -> list[AdapterCard]:
    manifests, problems = STARTERS.look()
    assert problems == {}
    return [STARTERS.verify(name) for manifest in manifests.values() for name in manifest.current.adapters.names]


def test_they_fit_what_is_served(cards: list[AdapterCard]) -> None:
    model = LocalSettings().model
    base_model.prepare(model, say=lambda _: None)
    renderer = PromptRenderer.load(model)
    for card in cards:
        check_fit(card, base_fingerprint=base_fingerprint(model), template_hash=renderer.template_hash)
        listed = json.loads((REPOSITORY / "deploy" / "toolsets" / card.toolset / "tools.json").read_text())
        assert card.tools_digest == tools_digest([Tool.model_validate(entry["function"]) for entry in listed])


def test_they_passed_the_gate_that_is_in_force(cards: list[AdapterCard]) -> None:
    for card in cards:
        assert card.gate["passed"]
        assert verdict(card.gate["figures"], [card.role if card.role != "joint" else "arguments"]) == []


def test_they_are_small_and_alone() -> None:
    files = [path for path in STARTERS.root.rglob("*") if path.is_file()]
    named = {name for manifest in STARTERS.manifests().values() for name in manifest.current.adapters.names}
    assert named
    assert {path.parent.name for path in files if path.parent != STARTERS.root} == named
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
