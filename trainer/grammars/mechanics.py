"""What a grammar is made of: dice that expand templates, and file trees. No words: each grammar brings its own.

A template is text in which `(a|b|)` is a choice, nested at will, and `{name}` a slot. Slots are filled last, so that a
path with brackets in it stays as it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.episodes import Ask, Call, Episode, Say

Steps = list[Ask | Call | Say]

_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


class Dice(random.Random):
    """A seeded source of choices."""

    def text(self, templates: Sequence[str], **slots: object) -> str:
        """One of `templates`, expanded, its slots filled."""
        text = self.choice(templates)
        while match := _CHOICE.search(text):
            text = text[: match.start()] + self.choice(match[1].split("|")) + text[match.end() :]
        text = re.sub(r" {2,}", " ", text).strip()
        return _SLOT.sub(lambda match: str(slots[match[1]]), text)

    def one_in(self, n: float) -> bool:
        """True once in `n` times."""
        return self.random() < 1 / n


def sentences(name: str) -> tuple[str, ...]:
    """The templates of `sentences/<name>.txt`, one a line, where `\\n` is a line break."""
    lines = (Path(__file__).parent / "sentences" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.replace("\\n", "\n") for line in lines)


def alternatives(template: str) -> list[str]:
    """Every text that a template can expand to, slots left as they are. For tests of what a grammar may say."""
    match = _CHOICE.search(template)
    if match is None:
        return [re.sub(r" {2,}", " ", template).strip()]
    parts = (template[: match.start()] + part + template[match.end() :] for part in match[1].split("|"))
    return [text for part in parts for text in alternatives(part)]


def evenly(one: Sequence[str], *other: str) -> tuple[str, ...]:
    """The templates of two authors, the shorter list repeated: what is drawn is about as often by the one as by the other."""
    most = max(len(one), len(other))
    return tuple(template for author in (one, other) for template in tuple(author) * round(most / len(author)))


@dataclass(frozen=True)
class Vocabulary:
    """The nouns of a grammar's trees. `kinds` gives for an extension how its content is written.

    One file in `bare`, where that is given, has no extension.
    """

    folders: Sequence[str]
    stems: Sequence[str]
    kinds: dict[str, Callable[[Dice], str]]
    media: Sequence[str]
    odd_stems: Sequence[str]
    bare: int | None = None


@dataclass
class World:
    """A workspace: the content of each file by its path, and the folders in which nothing is."""

    files: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        """Every folder, parents first."""
        found = {"/".join(path.split("/")[:depth]) for path in self.files for depth in range(1, path.count("/") + 1)}
        return sorted(found | set(self.empty))

    def inside(self, folder: str) -> list[str]:
        """The files right in `folder` ("" is the top), by path."""
        return sorted(path for path in self.files if path.rpartition("/")[0] == folder)

    def texts(self) -> list[str]:
        """Files that hold text."""
        return sorted(path for path, content in self.files.items() if content != MEDIA)


# What every picture and sound in a tree holds; the tool shows its base64, of which a prompt sees "[image]".
MEDIA = "\x01media"


def make_world(dice: Dice, words: Vocabulary) -> World:
    """A tree of 2 to 4 folders, one or two levels deep, with 5 to 9 files."""
    top = dice.sample(list(words.folders), dice.randint(2, 3))
    folders = ["", *top]
    if dice.one_in(2):
        folders.append(f"{top[0]}/{dice.choice([f for f in words.folders if f not in top])}")
    files: dict[str, str] = {}
    for stem in dice.sample(list(words.stems), dice.randint(5, 8)):
        if dice.one_in(6):
            stem = dice.choice(words.odd_stems)
        extension = "" if words.bare and dice.one_in(words.bare) else dice.choice(list(words.kinds))
        name = f"{stem}.{extension}" if extension else stem
        folder = dice.choice(folders)
        files[f"{folder}/{name}" if folder else name] = words.kinds[extension](dice)
    folder = dice.choice(folders)
    picture = f"{dice.choice(words.stems)}.{dice.choice(words.media)}"
    files[f"{folder}/{picture}" if folder else picture] = MEDIA
    world = World(files)
    world.empty = [folder for folder in folders if folder and folder not in world.folders]
    return world


def words(text: str) -> list[str]:
    """The parts between commas."""
    return text.split(",")


def base(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """The folder of a path, "" at the top."""
    return path.rpartition("/")[0]


def joined(folder: str, name: str) -> str:
    """`name` in `folder`, which may be "" or "."."""
    return f"{folder.rstrip('/')}/{name}" if folder not in ("", ".") else name


_KEYS = {letter: row[max(0, i - 1) : i + 2] for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for i, letter in enumerate(row)}


def with_typo(dice: Dice, text: str, kept: Sequence[str]) -> str:
    """One slip of the fingers in a word of five letters or more that is in none of `kept` (paths, contents)."""
    words = [m for m in re.finditer(r"(?<![\w./-])[a-z]{5,}(?![\w./-])", text) if not any(m[0] in part for part in kept)]
    if not words:
        return text
    word = dice.choice(words)
    at = word.start() + dice.randrange(1, len(word[0]) - 1)
    slip = dice.choice((text[at + 1] + text[at], "", text[at] * 2, dice.choice(_KEYS[text[at]])))
    taken = 2 if len(slip) == 2 and slip[1] == text[at] and slip[0] == text[at + 1] else 1
    return text[:at] + slip + text[at + taken :]


def _texts(value: object) -> list[str]:
    # Each as it stands: the text of a list would show its strings with escapes.
    if isinstance(value, (dict, list)):
        return [text for part in (value.values() if isinstance(value, dict) else value) for text in _texts(part)]
    return [str(value)]


@dataclass(frozen=True)
class Scene:
    """One kind of episode: `write` gives its steps, or None where the world does not have what it needs."""

    kind: str
    weight: float
    write: Callable[[Dice, World], Steps | None]
    names_tool: bool = False


@dataclass(frozen=True)
class Grammar:
    """All scenes of one author. `finish` gives a user's sentence its manner: greetings, typos, capitals."""

    name: str
    words: Vocabulary
    scenes: Sequence[Scene]
    systems: Sequence[str]
    finish: Callable[[Dice, str, Sequence[str]], str]

    def episodes(self, count: int, seed: int) -> list[Episode]:
        """`count` different episodes, the same for the same seed; each scene gets its share by weight."""
        total = sum(scene.weight for scene in self.scenes)
        written: dict[str, Episode] = {}
        for scene in self.scenes:
            wanted = max(1, round(count * scene.weight / total))
            for attempt in range(wanted * 20):
                if wanted == 0:
                    break
                episode = self._episode(scene, Dice(f"{self.name}/{seed}/{scene.kind}/{attempt}"))
                if episode is not None and written.setdefault(episode.id, episode) is episode:
                    wanted -= 1
        order = sorted(written)
        Dice(seed).shuffle(order)
        return [written[key] for key in order]

    def _episode(self, scene: Scene, dice: Dice) -> Episode | None:
        world = make_world(dice, self.words)
        steps = scene.write(dice, world)
        if steps is None:
            return None
        kept = [*world.files, *(text for step in steps if isinstance(step, Call) for text in _texts(step.arguments))]
        return Episode(
            source=self.name,
            kind=scene.kind,
            system=dice.choice(self.systems) if dice.one_in(5) else None,
            files=world.files,
            folders=world.empty,
            steps=[Ask(text=self.finish(dice, step.text, kept)) if isinstance(step, Ask) else step for step in steps],
            names_tool=scene.names_tool,
        )
