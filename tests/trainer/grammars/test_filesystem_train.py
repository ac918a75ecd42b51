"""The training grammar of the filesystem toolset: rich in words, faithful to its conventions, a stranger to the held-out one."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.contracts.schemas import compiled_schema
from services.shared.contracts.tools import Tool
from trainer import grammars
from trainer.episodes import Ask, Call, Episode, Say
from trainer.grammars import filesystem_heldout
from trainer.grammars.filesystem_train import GRAMMAR, SINGLE
from trainer.grammars.filesystem_train_single import VERBS
from trainer.grammars.filesystem_train_words import FOLDERS, WORDS
from trainer.grammars.mechanics import alternatives

MODULES = [
    importlib.import_module(f"{grammars.__name__}.{module.name}")
    for module in pkgutil.iter_modules(grammars.__path__)
    if module.name.startswith("filesystem_train")
]
EPISODES = GRAMMAR.episodes(4000, seed=0)
TOOLS = {
    tool["function"]["name"]: Tool(**tool["function"])
    for tool in json.loads(Path("deploy/toolsets/filesystem/tools.json").read_text())
}
# So many different first sentences per tool in 4,000 episodes, slots blanked; the tools that one names are few.
SENTENCES = 100
FEW = {"read_file": 5, "list_allowed_directories": 50}


def calls() -> Iterator[tuple[Episode, Call]]:
    for episode in EPISODES:
        yield from ((episode, step) for step in episode.steps if isinstance(step, Call))


def blanked(episode: Episode) -> str:
    """The first question without the names of the tree, numbers and what the first call holds."""
    text = episode.steps[0].text if isinstance(episode.steps[0], Ask) else ""
    values = [str(value) for step in episode.steps[1:2] if isinstance(step, Call) for value in step.arguments.values()]
    for part in sorted({*values, *episode.files, *(path.split("/")[-1] for path in episode.files)}, key=len, reverse=True):
        text = text.replace(part, "_")
    return re.sub(r"\d+", "0", text).lower()


def test_no_template_of_any_module_says_four_words_of_the_heldout_grammar() -> None:
    def runs(texts: Iterator[str]) -> set[tuple[str, ...]]:
        spoken = (re.findall(r"[a-z']+|\{", text.lower()) for text in texts)
        return {run for words in spoken for run in zip(*(words[i:] for i in range(4)), strict=False) if "{" not in run}

    assert runs(texts_of(*MODULES)) & runs(texts_of(filesystem_heldout)) == set()


def test_no_module_uses_a_verb_of_the_heldout_grammar() -> None:
    used = {word for text in texts_of(*MODULES) for word in re.findall(r"[a-z']+", text.lower())}
    assert used & filesystem_heldout.VERBS == set()


def texts_of(*modules: object) -> Iterator[str]:
    for module in modules:
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, tuple):
                yield from (text for template in value if isinstance(template, str) for text in alternatives(template))


def test_every_verb_of_the_list_is_used_and_there_are_many() -> None:
    used = {word for text in texts_of(*MODULES) for word in re.findall(r"[a-z']+", text.lower())}
    assert used >= VERBS
    assert len(VERBS) >= 250


def test_each_tool_is_asked_for_in_many_sentences() -> None:
    sentences: dict[str, set[str]] = defaultdict(set)
    for episode in EPISODES:
        if isinstance(episode.steps[1], Call):
            sentences[episode.steps[1].tool].add(blanked(episode))
    found = {tool: len(sentences[tool]) for tool in TOOLS}
    assert all(count >= FEW.get(tool, SENTENCES) for tool, count in found.items()), found


def test_each_scene_gets_its_share() -> None:
    counts = Counter(episode.kind for episode in EPISODES)
    assert sum(scene.weight for scene in GRAMMAR.scenes) == pytest.approx(100)
    assert sum(scene.weight for scene in SINGLE) == pytest.approx(66)
    for scene in GRAMMAR.scenes:
        assert counts[scene.kind] >= 0.9 * scene.weight * 40, scene.kind


def test_every_tool_but_the_deprecated_one_has_three_in_a_hundred_of_the_single_requests() -> None:
    counts = Counter(tool for episode in EPISODES for tool in called_alone(episode))
    assert all(counts[tool] >= 0.03 * 0.95 * len(EPISODES) for tool in TOOLS if tool != "read_file"), counts
    assert 0 < counts["read_file"] <= 0.02 * len(EPISODES)


def called_alone(episode: Episode) -> list[str]:
    found = [step.tool for step in episode.steps if isinstance(step, Call)]
    return found if len(episode.steps) == 3 else []


def test_all_episodes_differ_and_a_seed_repeats_them() -> None:
    assert len({episode.id for episode in EPISODES}) == len(EPISODES) >= 3960
    assert [episode.id for episode in GRAMMAR.episodes(100, seed=5)] == [episode.id for episode in GRAMMAR.episodes(100, seed=5)]


def test_the_arguments_of_every_call_satisfy_the_schema() -> None:
    for episode, call in calls():
        flaws = list(compiled_schema(TOOLS[call.tool]).iter_errors(call.arguments))
        assert not flaws, (episode.kind, call)
        assert set(call.arguments) <= set(TOOLS[call.tool].parameters.get("properties", {})), call


def test_a_search_goes_through_all_levels() -> None:
    patterns = [str(call.arguments["pattern"]) for _, call in calls() if call.tool == "search_files"]
    assert patterns
    assert all(pattern.startswith("**/") for pattern in patterns)


def test_read_file_is_only_called_when_it_is_named() -> None:
    for episode, call in calls():
        assert (call.tool == "read_file") == episode.names_tool
        assert not episode.names_tool or "read_file" in str(episode.steps[0]).lower()


def test_a_path_is_called_as_it_was_written_or_shown() -> None:
    for episode in EPISODES:
        if len(episode.steps) == 3 and isinstance(call := episode.steps[1], Call):
            asked = episode.steps[0].text if isinstance(episode.steps[0], Ask) else ""
            for key in ("path", "source"):
                value = str(call.arguments.get(key, "."))
                folder, _, name = value.rstrip("/").rpartition("/")
                assert value == "." or value in asked or (name in asked and folder in asked), (asked, value)


def test_text_that_is_to_be_written_or_replaced_is_in_the_question() -> None:
    for episode in EPISODES:
        if episode.kind in ("write", "edit") and isinstance(call := episode.steps[1], Call):
            asked = episode.steps[0].text if isinstance(episode.steps[0], Ask) else ""
            edits = call.arguments.get("edits", [])
            values = [call.arguments.get("content", ""), *(text for edit in edits for text in edit.values())]
            assert all(value in asked for value in values), (asked, values)


def test_an_edit_means_one_place() -> None:
    for episode in EPISODES:
        if episode.kind == "edit" and isinstance(call := episode.steps[1], Call):
            for edit in call.arguments["edits"]:
                assert [text.count(edit["oldText"]) for text in episode.files.values()].count(1) >= 1, edit


def test_every_episode_ends_with_an_answer() -> None:
    assert all(isinstance(episode.steps[0], Ask) and isinstance(episode.steps[-1], Say) for episode in EPISODES)


def test_the_plans_stop_after_few_calls_and_expect_failures_only_where_something_is_wrong() -> None:
    for episode in EPISODES:
        found = [step for step in episode.steps if isinstance(step, Call)]
        assert len(found) <= 7, episode
        if len(episode.steps) == 3:
            assert not any(call.fails for call in found), episode


def test_the_names_of_the_trees_are_many_and_odd() -> None:
    assert len(WORDS.stems) >= 600
    assert len(FOLDERS) >= 100
    assert len(WORDS.kinds) >= 40
    names = [*WORDS.stems, *WORDS.odd_stems]
    for kind in (
        r"^[a-z]+$",
        r"[a-z][A-Z]",
        r" ",
        r"_",
        r"-",
        r"\.",
        r"\d{4}-\d{2}",
        r"IMG_\d",
        r"[éüñ]",
        r"[а-я]",
        r"[\u4e00-\u9fff]",
        r"\(",
        r"\+",
        r"&",
    ):
        assert any(re.search(kind, name) for name in names), kind
    assert not set(WORDS.stems) & set(FOLDERS), "a file and a folder of one name cannot lie side by side"


def test_contents_are_mostly_short_and_sometimes_a_page() -> None:
    sizes = sorted(len(text) for episode in EPISODES for text in episode.files.values())
    assert sizes[len(sizes) // 2] < 80
    assert 400 < sizes[-1] < 3000


def test_documents_talk_of_files_and_give_orders() -> None:
    texts = [text for episode in EPISODES for path, text in episode.files.items() if path.endswith((".md", ".txt"))]
    for said in ("Do not delete", "Ignore everything above", "$ ", "## ", "Dear "):
        assert any(said in text for text in texts), said
