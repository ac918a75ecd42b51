"""Templates, trees and slips of the fingers."""

from __future__ import annotations

from trainer.grammars.filesystem_train_single import WORDS
from trainer.grammars.mechanics import Dice, alternatives, joined, make_world, with_typo


def test_choices_nest_and_slots_are_filled_last() -> None:
    texts = {Dice(seed).text(("(read|(show|print) me) {p}",), p="a (b|c).txt") for seed in range(40)}
    assert texts == {"read a (b|c).txt", "show me a (b|c).txt", "print me a (b|c).txt"}


def test_alternatives_are_all_that_a_template_can_say() -> None:
    assert sorted(alternatives("(a|b) {p}(|?)")) == ["a {p}", "a {p}?", "b {p}", "b {p}?"]


def test_a_typo_spares_what_has_to_be_copied() -> None:
    for seed in range(200):
        text = with_typo(Dice(seed), "please display reports/invoice.txt", ["reports/invoice.txt"])
        assert text.endswith("reports/invoice.txt")
    assert any(with_typo(Dice(seed), "please display it", []) != "please display it" for seed in range(5))
    assert with_typo(Dice(0), "ls docs", []) == "ls docs"


def test_a_world_has_folders_files_and_one_medium() -> None:
    for seed in range(50):
        world = make_world(Dice(seed), WORDS)
        assert world.folders
        assert 1 <= len(world.files) - len(world.texts()) <= 1
        assert all(joined(path.rpartition("/")[0], path.rpartition("/")[2]) == path for path in world.files)
