"""What goes wrong, for training: a call that fails and what one does about it, a search that finds nothing."""

from __future__ import annotations

from trainer.episodes import Ask, Call, Say
from trainer.grammars import filesystem_train_single as one
from trainer.grammars.filesystem_train_calls import (
    answer,
    asking_about,
    editing,
    found,
    listing,
    making,
    moving,
    reading,
    searching,
)
from trainer.grammars.filesystem_train_change import EDIT_DO, EDIT_SAY, MOVE_DO, MOVE_SAY
from trainer.grammars.filesystem_train_find import (
    FIND_ALL_DO,
    FIND_ALL_SAY,
    FIND_NAME_DO,
    FIND_NAME_SAY,
    FIND_WORD_DO,
    FIND_WORD_SAY,
)
from trainer.grammars.filesystem_train_goals import fresh, lonely
from trainer.grammars.filesystem_train_list import (
    LIST_DO,
    LIST_SAY,
)
from trainer.grammars.filesystem_train_read import (
    INFO_DO,
    INFO_SAY,
    READ_DO,
    READ_SAY,
)
from trainer.grammars.filesystem_train_said import ordered, quoted, said
from trainer.grammars.filesystem_train_words import code_number, invented, replacement
from trainer.grammars.mechanics import Dice, Steps, World, base, joined, parent, words

OUTSIDE_PATHS = words(
    "/etc/hosts,/etc/passwd,/root/.ssh/id_rsa,../secret.txt,/home/anna/a.txt,/var/log/syslog,/tmp/x.json,/usr/lib,/opt/app.conf,"
    "/home/user/.bashrc,../../keys.pem,/etc/ssl/openssl.cnf,/boot/config,/proc/cpuinfo,/srv/www/index.html,/mnt/usb/list.csv"
)
NO_FILE = (
    "There is no such file.",
    "I could not find it anywhere.",
    "It does not exist, sorry. Is the name right?",
    "No file of that name is here.",
)


def _asked(dice: Dice, orders: tuple[str, ...], sentences: tuple[str, ...], **slots: object) -> Ask:
    order = ordered(dice, dice.text(orders, **slots))
    return Ask(text=order if dice.one_in(2) else dice.text(sentences, **slots))


def misspelled(dice: Dice, name: str) -> str:
    """Nearly the name."""
    stem, dot, extension = name.rpartition(".")
    stem, extension = (stem, dot + extension) if stem else (name, "")
    at = dice.randrange(len(stem))
    return dice.choice(
        (
            f"{stem}s{extension}",
            f"{stem}{dice.randint(1, 9)}{extension}",
            f"{stem}_{dice.choice(words('old,new,final,copy'))}{extension}",
            f"{stem[:at]}{stem[at]}{stem[at:]}{extension}",
            f"{stem}.{dice.choice(words('txt,md,csv,json,doc'))}",
            f"{stem[:-1]}{extension}" if len(stem) > 3 else f"my{name}",
            f"{stem.upper() if stem != stem.upper() else stem.lower()}{extension}",
        )
    )


def missing_then_listed(dice: Dice, world: World) -> Steps | None:
    """The name was wrong: list the folder that came with it, then do it with the one that was meant.

    A name without a folder is searched for instead.
    """
    nested = [path for path in world.texts() if parent(path)]
    if not nested:
        return None
    path = dice.choice(nested)
    wrong = joined(parent(path), misspelled(dice, base(path)))
    if wrong in world.files or wrong in world.folders:
        return None
    start = dice.choice(("", "", "/workspace/", "./"))
    look = listing(f"{start}{parent(path)}".removesuffix("/") or ".")
    meant = joined(str(look.arguments["path"]), base(path))
    if dice.one_in(3):
        ask = _asked(dice, INFO_DO, INFO_SAY, p=quoted(dice, f"{start}{wrong}"))
        return [ask, asking_about(f"{start}{wrong}", fails=True), look, asking_about(meant), answer(dice)]
    ask = _asked(dice, READ_DO, READ_SAY, p=quoted(dice, f"{start}{wrong}"))
    return [ask, reading(f"{start}{wrong}", fails=True), look, reading(meant), answer(dice)]


def missing_then_found(dice: Dice, world: World) -> Steps | None:
    """Not where the user thought: search, then do it where it is."""
    path = lonely(dice, world, world.texts())
    if path is None:
        return None
    search, name = searching(f"**/{base(path)}"), base(path)
    if dice.one_in(3):
        old, new = one.unique_piece(dice, world.files[path]), replacement(dice)
        if old is None:
            return None
        ask = _asked(dice, EDIT_DO, EDIT_SAY, p=quoted(dice, name), a=quoted(dice, old, 2), b=quoted(dice, new, 2))
        return [ask, editing(name, old, new, fails=True), search, editing(found(path), old, new), answer(dice)]
    ask = _asked(dice, READ_DO, READ_SAY, p=quoted(dice, name))
    return [ask, reading(name, fails=True), search, reading(found(path)), answer(dice)]


def missing_for_good(dice: Dice, world: World) -> Steps | None:
    """Nowhere: say so."""
    name = one.new_name(dice)
    if not one.is_searchable(name) or name in (base(path) for path in (*world.files, *world.folders)):
        return None
    call = dice.choice((reading, asking_about))(name, fails=True)
    orders, sentences = (READ_DO, READ_SAY) if call.tool == "read_text_file" else (INFO_DO, INFO_SAY)
    ask = _asked(dice, orders, sentences, p=quoted(dice, name))
    return [ask, call, searching(f"**/{name}"), Say(text=dice.choice(NO_FILE))]


def nothing_found(dice: Dice, world: World) -> Steps | None:
    """A search without a result is a result: say so, and do not look for something else."""
    word = dice.choice((invented(dice), code_number(dice)))
    if any(word in path for path in world.files):
        return None
    pattern, orders, sentences = dice.choice(
        (
            (f"**/*{word}*", FIND_WORD_DO, FIND_WORD_SAY),
            (f"**/{word}.txt", FIND_NAME_DO, FIND_NAME_SAY),
            (f"**/*.{word}", FIND_ALL_DO, FIND_ALL_SAY),
        )
    )
    ask = _asked(dice, orders, sentences, w=quoted(dice, word), w0=word, n=f"{word}.txt", e=f".{word}", e0=word)
    return [ask, searching(pattern), Say(text=dice.choice(("Nothing was found.", "There is none.", *NO_FILE[:2])))]


def folder_missing(dice: Dice, world: World) -> Steps | None:
    """A folder that is not there: list the one above; if a name is near, that one, otherwise say so."""
    tops = [folder for folder in world.folders if "/" not in folder]
    meant = dice.choice(tops)
    wrong = dice.choice((misspelled(dice, meant), f"{meant}s", meant[:-1], meant.upper()))
    if wrong in world.files or wrong in world.folders or not wrong:
        return None
    is_near = dice.one_in(1.5)
    wrong = wrong if is_near else fresh(dice, world)
    if wrong in world.folders:
        return None
    text = dice.choice((wrong, wrong, f"the {wrong} folder", f"the folder {wrong}"))
    ask = _asked(dice, LIST_DO, LIST_SAY, d=text)
    if not is_near:
        return [ask, listing(wrong, fails=True), listing("."), Say(text="There is no such folder.")]
    return [ask, listing(wrong, fails=True), listing("."), listing(meant), answer(dice)]


def edit_not_matching(dice: Dice, world: World) -> Steps | None:
    """The text to replace is not quite what the file says: read it, then replace what it does say."""
    path = one.some_text(dice, world)
    old = path and one.unique_piece(dice, world.files[path])
    if not path or not old or len(old) < 4:
        return None
    at = dice.randrange(1, len(old) - 1)
    wrong = dice.choice((old.swapcase(), old[:at] + old[at + 1 :], old[:at] + old[at] + old[at:], f"{old}{dice.randint(1, 9)}"))
    if wrong in world.files[path] or wrong.split() == old.split():
        return None
    (text, value), new = said(dice, path), replacement(dice)
    ask = _asked(dice, EDIT_DO, EDIT_SAY, p=text, a=quoted(dice, wrong, 2), b=quoted(dice, new, 2))
    return [ask, editing(value, wrong, new, fails=True), reading(value), editing(value, old, new), answer(dice)]


def goal_missing(dice: Dice, world: World) -> Steps | None:
    """The folder to move into is not there: create it, then move again."""
    path, folder = dice.choice(sorted(world.files)), fresh(dice, world)
    text, value = said(dice, path)
    goal = joined(folder, base(path))
    ask = _asked(dice, MOVE_DO, MOVE_SAY, p=text, q=dice.choice((folder, f"the {folder} folder", f"folder {folder}")))
    return [ask, moving(value, goal, fails=True), making(folder), moving(value, goal), answer(dice)]


def source_missing(dice: Dice, world: World) -> Steps | None:
    """What is to be moved lies elsewhere: search, then move it from there."""
    path = lonely(dice, world, sorted(world.files))
    others = [folder for folder in world.folders if path and folder != parent(path)]
    if path is None or not others:
        return None
    folder = dice.choice(others)
    goal = joined(folder, base(path))
    ask = _asked(dice, MOVE_DO, MOVE_SAY, p=quoted(dice, base(path)), q=folder)
    return [
        ask, moving(base(path), goal, fails=True), searching(f"**/{base(path)}"), moving(found(path), goal), answer(dice),
    ]  # fmt: skip


def refused(dice: Dice, world: World) -> Steps | None:
    """Outside of what is allowed: say where one can look."""
    path = dice.choice((*OUTSIDE_PATHS, f"/{invented(dice)}/{one.new_name(dice)}", f"../{one.new_name(dice)}"))
    ask = _asked(dice, READ_DO, READ_SAY, p=quoted(dice, path))
    roots = Call(tool="list_allowed_directories", arguments={})
    return [ask, reading(path, fails=True), roots, Say(text="I may only use /workspace.")]
