"""The two grammars of the filesystem toolset: rich, repeatable, and strangers to each other."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

from trainer import grammars
from trainer.episodes import Ask, Call
from trainer.grammars import filesystem_heldout, filesystem_train_single
from trainer.grammars.mechanics import alternatives
from trainer.queries import grammar

# Said by both because nothing else names the thing: what a test of strangers must not count.
COMMON = 4


def templates(*modules: ModuleType) -> Iterator[str]:
    for module in modules:
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, tuple):
                for template in value:
                    if isinstance(template, str):
                        yield from alternatives(template)


_TRAIN_MODULES = [m.name for m in pkgutil.iter_modules(grammars.__path__) if m.name.startswith("filesystem_train")]
TRAIN = set(templates(*(importlib.import_module(f"{grammars.__name__}.{name}") for name in _TRAIN_MODULES)))
HELDOUT = set(templates(filesystem_heldout))


def plain(template: str) -> list[str]:
    return re.findall(r"[a-z']+|\{", template.lower())


def test_no_template_is_shared() -> None:
    assert {tuple(plain(text)) for text in TRAIN}.isdisjoint(tuple(plain(text)) for text in HELDOUT)


def test_no_run_of_four_words_is_shared() -> None:
    def runs(texts: set[str]) -> set[tuple[str, ...]]:
        return {
            tuple(run)
            for text in texts
            for words in [plain(text)]
            for run in zip(*(words[i:] for i in range(COMMON)), strict=False)
            if "{" not in run
        }

    assert runs(TRAIN) & runs(HELDOUT) == set()


def test_neither_grammar_uses_a_verb_of_the_other() -> None:
    def used(texts: set[str]) -> set[str]:
        return {word for text in texts for word in plain(text)}

    assert filesystem_train_single.VERBS & used(HELDOUT) == set()
    assert filesystem_heldout.VERBS & used(TRAIN) == set()


def test_no_folder_and_no_stem_of_a_tree_is_shared() -> None:
    train, heldout = filesystem_train_single.WORDS, filesystem_heldout.WORDS
    assert set(train.folders) & set(heldout.folders) == set()
    assert {*train.stems, *train.odd_stems} & {*heldout.stems, *heldout.odd_stems} == set()


def test_the_same_seed_writes_the_same_episodes_and_another_one_others() -> None:
    one, again, other = (grammar("filesystem", "train").episodes(60, seed) for seed in (1, 1, 2))
    assert [episode.id for episode in one] == [episode.id for episode in again]
    assert len({episode.id for episode in one} & {episode.id for episode in other}) < 5


def test_every_tool_is_called_in_both() -> None:
    for part in ("train", "heldout"):
        episodes = grammar("filesystem", part).episodes(400, 0)
        called = {step.tool for episode in episodes for step in episode.steps if isinstance(step, Call)}
        assert len(called) == (14 if part == "train" else 13), "read_file is deprecated: only a user who names it gets it"


def test_a_path_at_the_start_of_a_question_keeps_its_capitals() -> None:
    for episode in grammar("filesystem", "train").episodes(600, 3):
        for step in episode.steps:
            if isinstance(step, Ask):
                first = step.text.split(" ")[0]
                wrong = [path for path in episode.files if path.lower() == first.lower() and path != first]
                assert not wrong, (step.text, wrong)
