"""Adapters that must not serve: each is stopped by some layer, and what served before serves on.

Who stops what: the gate, by figures of held-out decisions; the evaluation, where the weights do not fit the model; the store,
by the files; whoever serves, by the card.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.shared.clients.adapters import AdapterStore, check_fit
from services.shared.clients.releases import ReleaseWatcher
from services.shared.contracts.adapters import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, AdapterSet
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.errors import AdapterRefused
from services.shared.contracts.tools import JsonObject
from tests.trainer.conftest import tiny_base
from tests.trainer.tiny_world import PROFILE, World, make_world
from trainer.figures import Outcome
from trainer.publish import GateRefused, Trained, card, publish
from trainer.rows import Decision

Weights = dict[str, Tensor]


@dataclass
class Place:
    """A world in which good adapters serve already."""

    world: World
    good: list[Trained]
    numbers: JsonObject
    outcomes: list[Outcome]
    store: Path

    def altered(self, out: Path, change: Callable[[Weights], Weights | None], of: int = 0) -> list[Trained]:
        """The good adapters with the weights of one of them changed."""
        folder = out / f"altered{of}"
        shutil.copytree(self.good[of].folder, folder)
        weights = load_file(folder / WEIGHTS_FILE)
        save_file(change(weights) or weights, folder / WEIGHTS_FILE)
        return [replace(one, folder=folder) if at == of else one for at, one in enumerate(self.good)]

    def copied(self, out: Path) -> list[Trained]:
        """The good adapters, the selector in a folder of its own; the very same one would not be published again."""
        return self.altered(out, nudged)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("world")
    world = make_world(folder / "model")
    good = [world.train(role, world.rows(role), folder) for role in ("selector", "joint")]
    outcomes = world.outcomes(good)
    return Place(world, good, world.numbers(good), outcomes, folder / "store")


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Iterator[Place]:
    """Afterwards the old release still serves, whole."""
    place = replace(made, store=tmp_path / "store")
    old = publish(place.good, place.world.origin, place.numbers, place.store)
    yield place
    store = AdapterStore(place.store)
    manifest = store.manifest("files")
    assert manifest is not None
    assert manifest.release(old.number) == old
    assert [store.verify(name).gate["passed"] for name in old.adapters.names] == [True, True]


def current(place: Place) -> int:
    manifest = AdapterStore(place.store).manifest("files")
    assert manifest is not None
    return manifest.current.number


def test_good_adapters_pass_every_layer(place: Place, tmp_path: Path) -> None:
    assert publish(place.copied(tmp_path), place.world.origin, place.numbers, place.store).number == 2


# The gate, by figures of adapters that are in order as files.


def shifted(found: list[Decision]) -> list[Decision]:
    """Every label and its arguments at the question of another decision."""
    return [
        replace(one, label=other.label, arguments=other.arguments)
        for one, other in zip(found, [*found[7:], *found[:7]], strict=True)
    ]


def wrong_arguments(found: list[Decision]) -> list[Decision]:
    return [replace(one, arguments={"path": "zz"} if one.label == "read_file" else {"labels": []}) for one in found]


def always_read(found: list[Decision]) -> list[Decision]:
    return [replace(one, label="read_file", arguments={"path": "a"}) for one in found]


def zero_b(weights: Weights) -> None:
    for name in (name for name in weights if "lora_B" in name):
        weights[name].zero_()


def negated(weights: Weights) -> None:
    for name in (name for name in weights if "lora_B" in name):
        weights[name].neg_()


def magnified(weights: Weights) -> None:
    for tensor in weights.values():
        tensor.mul_(30)


def noise(weights: Weights) -> None:
    torch.manual_seed(0)
    for tensor in weights.values():
        tensor.normal_()


RETRAINED = {
    "shuffled labels": ("selector", shifted, "selection_first_turn"),
    "one label for everything": ("selector", always_read, "selection_later_turns"),
    "shuffled arguments": ("joint", wrong_arguments, "arguments_exact"),
}


@pytest.mark.parametrize("sabotage", RETRAINED)
def test_the_gate_refuses_what_was_trained_on(sabotage: str, place: Place, tmp_path: Path) -> None:
    role, spoiled, figure = RETRAINED[sabotage]
    bad = place.world.train(role, place.world.rows(role, spoiled(place.world.decisions)), tmp_path)
    trained = [bad, place.good[1]] if role == "selector" else [place.good[0], bad]
    refused_by_the_gate(place, trained, figure)


ALTERED = {
    "a B of zeros, which does nothing": (zero_b, 0, "selection_first_turn"),
    "a B of zeros in the arguments": (zero_b, 1, "arguments_exact"),
    "negated weights": (negated, 0, "selection_"),
    "magnified weights": (magnified, 0, "selection_"),
    "noise": (noise, 0, "selection_"),
}


@pytest.mark.parametrize("sabotage", ALTERED)
def test_the_gate_refuses_weights_of(sabotage: str, place: Place, tmp_path: Path) -> None:
    change, of, figure = ALTERED[sabotage]
    refused_by_the_gate(place, place.altered(tmp_path, change, of), figure)


def test_the_gate_refuses_swapped_selector_and_arguments(place: Place) -> None:
    selector, joint = place.good
    swapped = [replace(selector, folder=joint.folder), replace(joint, folder=selector.folder)]
    refused_by_the_gate(place, swapped, "arguments_exact")


def test_the_gate_refuses_the_same_adapters_again(place: Place) -> None:
    refused_by_the_gate(place, place.good, "none of .* is better than with the published", place.outcomes)


def test_the_gate_refuses_adapters_worse_than_the_published_ones(place: Place, tmp_path: Path) -> None:
    short = replace(PROFILE, epochs=3)
    worse = place.world.train("joint", place.world.rows("joint")[:4], tmp_path, short)
    refused_by_the_gate(place, [place.good[0], worse], "arguments_exact: .* the published adapters have", place.outcomes)


def refused_by_the_gate(place: Place, trained: list[Trained], figure: str, published: list[Outcome] | None = None) -> None:
    numbers = place.world.numbers(trained, published)
    with pytest.raises(GateRefused, match=figure):
        publish(trained, place.world.origin, numbers, place.store)
    assert current(place) == 1


# The evaluation.


def test_the_evaluation_stops_at_weights_of_another_models_shape(place: Place, tmp_path: Path) -> None:
    def wider(weights: Weights) -> Weights:
        return {name: torch.cat([w, w], 1) if "lora_A" in name else w for name, w in weights.items()}

    # What could not be loaded stays on the model.
    world = replace(place.world, base=tiny_base())
    with pytest.raises(RuntimeError, match="size mismatch"):
        world.numbers(place.altered(tmp_path, wider))
    assert current(place) == 1


# The store, by the files: the figures given are good ones.


def first(weights: Weights, half: str) -> str:
    return next(name for name in sorted(weights) if half in name)


def not_a_number(weights: Weights) -> None:
    weights[first(weights, "lora_B")][0, 0] = float("nan")


def nudged(weights: Weights) -> None:
    weights[first(weights, "lora_B")][0, 0] += 1e-3


def infinite(weights: Weights) -> None:
    weights[first(weights, "lora_A")][0, 0] = float("-inf")


def without_a_half(weights: Weights) -> None:
    del weights[first(weights, "lora_B")]


def with_a_head(weights: Weights) -> None:
    weights["base_model.model.lm_head.weight"] = torch.zeros(4, 4)


STORED_WEIGHTS = {
    "not a number": (not_a_number, "infinite or not a number"),
    "infinite": (infinite, "infinite or not a number"),
    "without a half": (without_a_half, "lora_A and lora_B of ranks"),
    "with a tensor that is not one of LoRA": (with_a_head, "does not know what tensor .*lm_head"),
    "in double precision": (lambda weights: {name: w.double() for name, w in weights.items()}, "dtype"),
}


@pytest.mark.parametrize("sabotage", STORED_WEIGHTS)
def test_the_store_refuses_weights_that_are(sabotage: str, place: Place, tmp_path: Path) -> None:
    change, reason = STORED_WEIGHTS[sabotage]
    refused_by_the_store(place, place.altered(tmp_path, change), reason)


def truncated(folder: Path) -> None:
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])


def padded(folder: Path) -> None:
    with (folder / WEIGHTS_FILE).open("ab") as file:
        file.write(bytes(100))


def configured(folder: Path, **changed: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changed))


def linked(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS_FILE).symlink_to(folder.parent / "elsewhere")


STORED_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (truncated, "truncated"),
    "padded weights": (padded, "truncated or padded"),
    "another rank in the config": (partial(configured, r=16), "rank"),
    "DoRA, which is not served": (partial(configured, use_dora=True), "use_dora"),
    "another method": (partial(configured, peft_type="IA3"), "peft_type"),
    "a pickle beside": (lambda folder: (folder / "adapter_model.bin").write_bytes(b"x"), "pickle"),
    "no config": (lambda folder: (folder / CONFIG_FILE).unlink(), CONFIG_FILE),
    "weights behind a symlink": (linked, "symlink"),
}


@pytest.mark.parametrize("sabotage", STORED_FILES)
def test_the_store_refuses(sabotage: str, place: Place, tmp_path: Path) -> None:
    change, reason = STORED_FILES[sabotage]
    trained = place.copied(tmp_path)
    change(trained[0].folder)
    refused_by_the_store(place, trained, reason)


def refused_by_the_store(place: Place, trained: list[Trained], reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        publish(trained, place.world.origin, place.numbers, place.store)
    assert current(place) == 1


def test_the_store_promotes_no_card_that_lacks_a_field(place: Place) -> None:
    store, name = AdapterStore(place.store), other_card(place, seed=7)
    directory = place.store / name
    directory.chmod(0o755)
    lacking = {key: value for key, value in json.loads((directory / CARD_FILE).read_text()).items() if key != "template_hash"}
    (directory / CARD_FILE).unlink()
    (directory / CARD_FILE).write_text(json.dumps(lacking))
    with pytest.raises(AdapterRefused, match="template_hash: Field required"):
        store.promote("files", AdapterSet(selector=name))
    assert current(place) == 1


def test_the_store_promotes_no_argument_adapter_as_a_selector(place: Place) -> None:
    name = other_card(place, role="arguments", tool="read_file")
    with pytest.raises(AdapterRefused, match="is to be the selector"):
        AdapterStore(place.store).promote("files", AdapterSet(selector=name))
    assert current(place) == 1


def other_card(place: Place, **fields: object) -> str:
    """The good selector's files, published with another card."""
    honest = card(place.good[0], place.world.origin, {})
    return AdapterStore(place.store).publish(place.good[0].folder, honest.model_copy(update=fields))


# Whoever serves, by the card: the store cannot know what is served.


@pytest.mark.anyio
@pytest.mark.parametrize("field", ["template_hash", "base_fingerprint"])
async def test_what_was_trained_for_something_else_is_not_served(field: str, place: Place) -> None:
    origin = place.world.origin
    store = AdapterStore(place.store)
    fits = partial(
        check_fit,
        base_fingerprint=base_fingerprint(origin.model_dir),
        template_hash=place.world.prompts.renderer.template_hash,
    )

    async def warm(name: str) -> None:
        pass

    watcher = ReleaseWatcher(store, warm, fits, poll_s=0.01)
    refused = watcher.metrics.changes.labels("files", "refused")
    async with watcher.following(), asyncio.timeout(30):
        while await watcher.obstacle():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        store.promote("files", AdapterSet(selector=other_card(place, **{field: "0" * 64})))
        while not refused._value.get():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        serving = watcher.current("files")
    assert serving is not None
    assert serving.number == 1
