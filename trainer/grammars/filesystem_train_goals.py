"""Goals of two to six calls for training: what a careful person does one after another, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence

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
    writing,
)
from trainer.grammars.filesystem_train_said import bare, place, quoted, said, several, target
from trainer.grammars.filesystem_train_several import (
    COPY,
    EDIT_CHECK,
    FIND_EDIT,
    FIND_INFO,
    FIND_INFO_ALL,
    FIND_MEDIA,
    FIND_MOVE,
    FIND_MOVE_ONE,
    FIND_READ,
    FIND_READ_ALL,
    FIND_RENAME,
    IF_READ,
    IF_WRITE,
    INFO_EACH,
    INFO_TWO,
    JOIN_REVERSED,
    JOIN_THREE,
    JOIN_TWO,
    LIST_ALL,
    LIST_INFO,
    LIST_MOVE,
    LIST_READ,
    MOVE_EACH,
    NEW_FOLDER,
    NEW_MOVE,
    NEW_SEVERAL,
    NEW_WRITE,
    READ_EDIT,
    ROOTS_LIST,
    SIZES_MOVE,
    SIZES_READ,
    TREE_NEW,
    TREE_READ,
    WRITE_CHECK,
    WRITE_INFO,
    WRITE_MOVE,
)
from trainer.grammars.filesystem_train_words import WORDS, content, invented, replacement
from trainer.grammars.mechanics import MEDIA, Dice, Steps, World, base, joined, parent


def lonely(dice: Dice, world: World, paths: Sequence[str]) -> str | None:
    """One of `paths` that lies in a folder and that a search for its name finds, and only it."""
    names = [base(path) for path in world.files] + [base(folder) for folder in world.folders]
    fit = [path for path in paths if parent(path) and one.is_searchable(base(path)) and names.count(base(path)) == 1]
    return dice.choice(fit) if fit else None


def fresh(dice: Dice, world: World) -> str:
    """The name of a folder that is not there."""
    name = one.new_stem(dice)
    return name if name not in world.files and name not in world.folders else invented(dice)


def joined_wishes(dice: Dice, world: World) -> Steps | None:
    """Two or three wishes in one message."""
    makers = (
        one.read, one.read_part, one.media, one.read_several, one.write, one.edit, one.mkdir, one.list_folder, one.sizes,
        one.tree, one.move, one.rename, one.find, one.info, one.allowed,
    )  # fmt: skip
    wishes = [make(dice, world) for make in dice.sample(makers, dice.choice((2, 2, 2, 3)))]
    orders = [wish.order for wish in wishes if wish and wish.order and "\n" not in wish.order]
    calls = [wish.call for wish in wishes if wish]
    if len(orders) < len(wishes) or not _are_independent(calls):
        return None
    spoken = dict(zip("xyz", orders, strict=False))
    templates = JOIN_THREE if len(orders) == 3 else dice.choice((JOIN_TWO, JOIN_TWO, JOIN_TWO, JOIN_REVERSED))
    return [Ask(text=dice.text(templates, **spoken)), *calls, answer(dice)]


def _are_independent(calls: Sequence[Call]) -> bool:
    # No call touches what another one changes, nor anything in a folder that another one moves.
    for call in calls:
        if call.tool in ("move_file", "write_file", "edit_file", "create_directory"):
            for path in _touched(call):
                others = [other for another in calls if another is not call for other in _touched(another)]
                if any(other == path or other.startswith(f"{path}/") for other in others):
                    return False
    return True


def _touched(call: Call) -> list[str]:
    named = [call.arguments.get(key) for key in ("path", "source", "destination")]
    return [bare(path) for path in [*named, *call.arguments.get("paths", [])] if isinstance(path, str)]


def find_then_read(dice: Dice, world: World) -> Steps | None:
    """Where it is, then what it says."""
    path = lonely(dice, world, world.texts())
    if path is None:
        return None
    return [
        Ask(text=dice.text(FIND_READ, n=quoted(dice, base(path)))), searching(f"**/{base(path)}"), reading(found(path)),
        answer(dice),
    ]  # fmt: skip


def find_then_media(dice: Dice, world: World) -> Steps | None:
    """Where it is, then what it shows."""
    path = lonely(dice, world, [path for path, text in world.files.items() if text == MEDIA])
    if path is None:
        return None
    show = Call(tool="read_media_file", arguments={"path": found(path)})
    return [Ask(text=dice.text(FIND_MEDIA, n=base(path))), searching(f"**/{base(path)}"), show, answer(dice)]


def find_then_info(dice: Dice, world: World) -> Steps | None:
    """Where it is, then how big or old."""
    path = lonely(dice, world, sorted(world.files))
    if path is None:
        return None
    ask = Ask(text=dice.text(FIND_INFO, n=quoted(dice, base(path))))
    return [ask, searching(f"**/{base(path)}"), asking_about(found(path)), answer(dice)]


def find_then_edit(dice: Dice, world: World) -> Steps | None:
    """Where it is, then the change in it."""
    path = lonely(dice, world, world.texts())
    old = path and one.unique_piece(dice, world.files[path])
    if not path or not old:
        return None
    new = replacement(dice)
    ask = Ask(text=dice.text(FIND_EDIT, n=base(path), a=quoted(dice, old, 2), b=quoted(dice, new, 2)))
    return [ask, searching(f"**/{base(path)}"), editing(found(path), old, new), answer(dice)]


def find_then_move_one(dice: Dice, world: World) -> Steps | None:
    """Where it is, then to another folder or another name."""
    path = lonely(dice, world, sorted(world.files))
    if path is None:
        return None
    search = searching(f"**/{base(path)}")
    if dice.one_in(2):
        name = one.new_name(dice, path.rpartition(".")[2] if "." in base(path)[1:] else "")
        ask = Ask(text=dice.text(FIND_RENAME, n=base(path), q=quoted(dice, name)))
        return [ask, search, moving(found(path), found(joined(parent(path), name))), answer(dice)]
    folder = dice.choice([folder for folder in world.folders if folder != parent(path)] or [""])
    into, goal = target(dice, folder)
    ask = Ask(text=dice.text(FIND_MOVE_ONE, n=base(path), d=into))
    return [ask, search, moving(found(path), joined(goal, base(path))), answer(dice)]


def _of_extension(world: World, extension: str) -> list[str]:
    # The server lists as the file system gives entries; the gold order is the alphabet's, whatever was listed first.
    return sorted(path for path in world.files if base(path).endswith(f".{extension}"))


def find_then_all(dice: Dice, world: World) -> Steps | None:
    """Every file that a search shows: read at once, or looked at one by one."""
    extension = one.some_extension(dice, world)
    paths = _of_extension(world, extension)
    if not paths or len(paths) > 3 or any(world.files[path] == MEDIA for path in paths):
        return None
    spoken = dice.choice((f".{extension}", extension))
    search = searching(f"**/*.{extension}")
    if dice.one_in(2):
        calls = [asking_about(found(path)) for path in paths]
        return [Ask(text=dice.text(FIND_INFO_ALL, e=spoken)), search, *calls, answer(dice)]
    several_at_once = Call(tool="read_multiple_files", arguments={"paths": [found(path) for path in paths]})
    read = several_at_once if len(paths) > 1 else reading(found(paths[0]))
    return [Ask(text=dice.text(FIND_READ_ALL, e=spoken)), search, read, answer(dice)]


def find_then_move(dice: Dice, world: World) -> Steps | None:
    """Every file that a search shows goes into a folder, a new one or one that is there."""
    extension = one.some_extension(dice, world)
    paths = _of_extension(world, extension)
    if not 1 <= len(paths) <= 3 or len({base(path) for path in paths}) < len(paths):
        return None
    is_new = dice.one_in(2)
    folder = fresh(dice, world) if is_new else dice.choice(world.folders)
    if any(parent(path) == folder or joined(folder, base(path)) in world.folders for path in paths):
        return None
    into = dice.text((NEW_FOLDER,), d=folder) if is_new else dice.choice((folder, f"the {folder} folder"))
    return [
        Ask(text=dice.text(FIND_MOVE, e=dice.choice((f".{extension}", extension)), d=into)),
        searching(f"**/*.{extension}"),
        *([making(folder)] if is_new else []),
        *(moving(found(path), joined(folder, base(path))) for path in paths),
        answer(dice),
    ]


def list_then_read(dice: Dice, world: World) -> Steps | None:
    """A folder, then one of its files."""
    paths = [path for path in world.texts() if parent(path)]
    if not paths:
        return None
    path = dice.choice(paths)
    text, value = place(dice, parent(path))
    ask = Ask(text=dice.text(LIST_READ, d=text, n=quoted(dice, base(path))))
    return [ask, listing(value), reading(joined(value, base(path))), answer(dice)]


def _small_folder(dice: Dice, world: World) -> tuple[str, list[str]] | None:
    # A folder of one to three text files and nothing else: then "everything in it" is a short list.
    folders = [
        folder
        for folder in world.folders
        if 1 <= len(world.inside(folder)) <= 3
        and all(world.files[path] != MEDIA for path in world.inside(folder))
        and not any(parent(other) == folder for other in world.folders)
    ]
    if not folders:
        return None
    folder = dice.choice(folders)
    return folder, world.inside(folder)


def list_then_all(dice: Dice, world: World) -> Steps | None:
    """A folder, then all that is in it: read at once, asked about one by one, or moved."""
    small = _small_folder(dice, world)
    if small is None:
        return None
    folder, paths = small
    text, value = place(dice, folder)
    listed = [joined(value, base(path)) for path in paths]
    way = dice.randrange(5)
    if way < 2:
        read = Call(tool="read_multiple_files", arguments={"paths": list(listed)}) if len(listed) > 1 else reading(listed[0])
        return [Ask(text=dice.text(LIST_ALL, d=text)), listing(value), read, answer(dice)]
    if way == 2:
        return [Ask(text=dice.text(LIST_INFO, d=text)), listing(value), *map(asking_about, listed), answer(dice)]
    others = [other for other in world.folders if not other.startswith(folder)]
    if not others:
        return None
    into, goal = place(dice, dice.choice(others))
    moves = [moving(path, joined(goal, base(path))) for path in listed]
    if any(joined(bare(goal), base(path)) in (*world.files, *world.folders) for path in listed):
        return None
    return [Ask(text=dice.text(LIST_MOVE, d=text, g=into)), listing(value), *moves, answer(dice)]


def copy(dice: Dice, world: World) -> Steps | None:
    """There is no tool for copies: read, then write the same."""
    path = one.some_text(dice, world)
    if path is None or len(world.files[path]) > 120:
        return None
    goal = dice.choice((joined(dice.choice(["", *world.folders]), one.new_name(dice)), f"{path}.bak"))
    if goal in world.files or goal in world.folders:
        return None
    (text, value), spoken = said(dice, path), quoted(dice, goal)
    return [Ask(text=dice.text(COPY, p=text, q=spoken)), reading(value), writing(goal, world.files[path]), answer(dice)]


def new_folder_then_move(dice: Dice, world: World) -> Steps | None:
    """A folder, then what goes into it."""
    path, folder = dice.choice(sorted(world.files)), fresh(dice, world)
    text, value = said(dice, path)
    ask = Ask(text=dice.text(NEW_MOVE, d=quoted(dice, folder), p=text))
    return [ask, making(folder), moving(value, joined(folder, base(path))), answer(dice)]


def new_folder_then_write(dice: Dice, world: World) -> Steps | None:
    """A folder, then a file in it."""
    folder, name, body = fresh(dice, world), one.new_name(dice), content(dice)
    ask = Ask(text=dice.text(NEW_WRITE, d=quoted(dice, folder), n=quoted(dice, name), c=quoted(dice, body, 2)))
    return [ask, making(folder), writing(f"{folder}/{name}", body), answer(dice)]


def new_folders(dice: Dice, world: World) -> Steps | None:
    """Two or three folders, one call each."""
    names = sorted({fresh(dice, world) for _ in range(dice.choice((2, 2, 3)))})
    if len(names) < 2 or any("," in name for name in names):
        return None
    start = dice.choice(["", *world.folders])
    text, values = several(dice, [joined(start, name) for name in names])
    return [Ask(text=dice.text(NEW_SEVERAL, ps=text)), *map(making, values), answer(dice)]


def read_then_edit(dice: Dice, world: World) -> Steps | None:
    """A look before the change, or after it."""
    path = one.some_text(dice, world)
    old = path and one.unique_piece(dice, world.files[path])
    if not path or not old:
        return None
    (text, value), new = said(dice, path), replacement(dice)
    slots = {"p": text, "a": quoted(dice, old, 2), "b": quoted(dice, new, 2)}
    change = editing(value, old, new)
    if dice.one_in(2):
        return [Ask(text=dice.text(READ_EDIT, **slots)), reading(value), change, answer(dice)]
    return [Ask(text=dice.text(EDIT_CHECK, **slots)), change, reading(value), answer(dice)]


def write_then(dice: Dice, world: World) -> Steps | None:
    """Written, then read back, asked about or moved."""
    path, body = joined(one.some_folder(dice, world), one.new_name(dice)), content(dice)
    if path in world.files or path in world.folders:
        return None
    (text, value), spoken = said(dice, path), quoted(dice, body, 2)
    way = dice.randrange(4)
    if way < 2:
        return [Ask(text=dice.text(WRITE_CHECK, p=text, c=spoken)), writing(value, body), reading(value), answer(dice)]
    if way == 2:
        return [Ask(text=dice.text(WRITE_INFO, p=text, c=spoken)), writing(value, body), asking_about(value), answer(dice)]
    others = [folder for folder in world.folders if folder != parent(path)]
    if not others:
        return None
    into, goal = place(dice, dice.choice(others))
    move = moving(value, joined(goal, base(path)))
    return [Ask(text=dice.text(WRITE_MOVE, p=text, c=spoken, d=into)), writing(value, body), move, answer(dice)]


def compare_two(dice: Dice, world: World) -> Steps | None:
    """The metadata of both."""
    if len(world.files) < 2:
        return None
    (text, value), (other, second) = (said(dice, path) for path in dice.sample(sorted(world.files), 2))
    return [Ask(text=dice.text(INFO_TWO, p=text, q=other)), asking_about(value), asking_about(second), answer(dice)]


def each_of(dice: Dice, world: World) -> Steps | None:
    """The same with each of two or three files: metadata, or a move."""
    paths = dice.sample(sorted(world.files), dice.choice((2, 2, 3)))
    text, values = several(dice, paths)
    if dice.one_in(2):
        return [Ask(text=dice.text(INFO_EACH, ps=text)), *map(asking_about, values), answer(dice)]
    folders = [folder for folder in world.folders if folder not in [parent(path) for path in paths]]
    if not folders or len({base(path) for path in paths}) < len(paths):
        return None
    into, goal = place(dice, dice.choice(folders))
    if any(joined(bare(goal), base(path)) in (*world.files, *world.folders) for path in paths):
        return None
    moves = [moving(value, joined(goal, base(value))) for value in values]
    return [Ask(text=dice.text(MOVE_EACH, ps=text, d=into)), *moves, answer(dice)]


def sizes_then(dice: Dice, world: World) -> Steps | None:
    """The largest file of a folder: read or moved."""
    folder = dice.choice(["", *world.folders])
    inside = world.inside(folder)
    if len(inside) < 2 or any(world.files[path] == MEDIA for path in inside):
        return None
    ranked = sorted(inside, key=lambda path: len(world.files[path].encode()))
    if len(world.files[ranked[-1]].encode()) == len(world.files[ranked[-2]].encode()):
        return None
    text, value = place(dice, folder)
    largest = joined(value, base(ranked[-1]))
    look = Call(tool="list_directory_with_sizes", arguments={"path": value, "sortBy": "size"})
    others = [other for other in world.folders if other != folder]
    if others and dice.one_in(3):
        into, goal = place(dice, dice.choice(others))
        if joined(bare(goal), base(largest)) in (*world.files, *world.folders):
            return None
        move = moving(largest, joined(goal, base(largest)))
        return [Ask(text=dice.text(SIZES_MOVE, d=text, g=into)), look, move, answer(dice)]
    return [Ask(text=dice.text(SIZES_READ, d=text)), look, reading(largest), answer(dice)]


def tree_then(dice: Dice, world: World) -> Steps | None:
    """The structure, then a file of it, or a new folder in it."""
    paths = [path for path in world.texts() if parent(path)]
    if not paths:
        return None
    path = dice.choice(paths)
    text, value = place(dice, parent(path))
    look = Call(tool="directory_tree", arguments={"path": value})
    if dice.one_in(2):
        return [Ask(text=dice.text(TREE_READ, d=text, p=base(path))), look, reading(joined(value, base(path))), answer(dice)]
    name = fresh(dice, world)
    if joined(parent(path), name) in (*world.files, *world.folders):
        return None
    return [Ask(text=dice.text(TREE_NEW, d=text, n=quoted(dice, name))), look, making(joined(value, name)), answer(dice)]


def roots_then_list(dice: Dice, world: World) -> Steps | None:
    """Where one may look, then a look."""
    return [
        Ask(text=dice.text(ROOTS_LIST)), Call(tool="list_allowed_directories", arguments={}), listing("/workspace"), answer(dice),
    ]  # fmt: skip


def if_there(dice: Dice, world: World) -> Steps | None:
    """What comes second depends on what the first call says."""
    if dice.one_in(2):
        path = one.some_text(dice, world)
        if path is None:
            return None
        text, value = said(dice, path)
        ask = Ask(text=dice.text(IF_READ, p=text))
        return [ask, asking_about(value), reading(value), answer(dice)]
    path, body = one.some_text(dice, world), content(dice)
    if path and dice.one_in(3):
        text, value = said(dice, path)
        ask = Ask(text=dice.text(IF_WRITE, p=text, c=quoted(dice, body, 2)))
        return [ask, asking_about(value), Say(text=f"{base(path)} is there already, so I left it alone.")]
    name = one.new_name(dice)
    if name in world.files or name in world.folders or name in WORDS.folders:
        return None
    ask = Ask(text=dice.text(IF_WRITE, p=quoted(dice, name), c=quoted(dice, body, 2)))
    return [ask, asking_about(name, fails=True), writing(name, body), answer(dice)]
