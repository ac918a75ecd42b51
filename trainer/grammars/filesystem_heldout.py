"""How other users speak to the filesystem toolset: for evaluation only, never for training.

Written by an author who has not seen the training grammar: other wordings, other names, other ways to point at a path. The
conventions of the gold calls are the same, for they are what is to be learned. What is said is in `filesystem_heldout_words`.
"""

from __future__ import annotations

from collections.abc import Callable

from services.shared.contracts.tools import JsonObject
from trainer.episodes import Ask, Call, Say
from trainer.grammars.filesystem_heldout_words import (
    ALLOWED,
    BIGGEST,
    CHAT,
    COPY,
    EDIT,
    FETCH_EDIT,
    FIND_EXT,
    FIND_EXT_ALL,
    FIND_MOVE,
    FIND_NAME,
    FIND_READ,
    FIND_WORD,
    HEAD,
    HEAVIEST,
    INFO,
    LIST,
    LIST_READ,
    MKDIR,
    MOVE,
    NESTED,
    NEW_MOVE,
    NEW_WRITE,
    OUTSIDE,
    PICTURE,
    READ,
    RENAME,
    ROOTS,
    SEVERAL,
    SIZES,
    SOUND,
    SOUNDS,
    STEMS,
    TAIL,
    THEN_ABOUT,
    THEN_FETCH,
    THEN_FETCH_NAMED,
    THEN_INFO,
    THEN_LIST,
    THEN_RETITLE,
    THEN_SHIFT,
    TODOS,
    TREE,
    TWO,
    VALUES,
    VERBS,
    WORDS,
    WRITE,
    WRITE_BACK,
    finish,
    pair,
    place,
    quoted,
    said,
)
from trainer.grammars.mechanics import MEDIA, Dice, Grammar, Scene, Steps, World, base, joined, parent

__all__ = ["GRAMMAR", "VERBS", "WORDS"]

Write = Callable[[Dice, World], Steps | None]


def _ask(dice: Dice, templates: tuple[str, ...], **slots: object) -> Ask:
    return Ask(text=dice.text(templates, **slots))


def _name(dice: Dice, extension: str | None = None) -> str:
    extension = dice.choice(("txt", "md", "adoc")) if extension is None else extension
    return f"{dice.choice(STEMS)}.{extension}" if extension else dice.choice(STEMS)


def _text_file(dice: Dice, world: World, *, nested: bool = False) -> str:
    paths = [path for path in world.texts() if parent(path)] if nested else world.texts()
    return dice.choice(paths or [""])


def _once(world: World, path: str) -> bool:
    return sum(base(other) == base(path) for other in world.files) == 1


def _body(dice: Dice) -> tuple[str, str]:
    value = dice.choice((*TODOS, pair(dice), ", ".join(dice.sample(STEMS[:40], 2))))
    # A task without marks would read as part of the request.
    mark = dice.choice(('"', '"', "'", "" if " = " in value else '"'))
    return f"{mark}{value}{mark}", value


def _call(tool: str, **arguments: object) -> Call:
    return Call(tool=tool, arguments=arguments)


def _done(dice: Dice) -> Say:
    return Say(text=dice.choice(("There it is.", "Taken care of.", "Okay, that was all.")))


def _with_path(templates: tuple[str, ...], tool: str) -> Write:
    def write(dice: Dice, world: World) -> Steps | None:
        text, value = said(dice, _text_file(dice, world))
        return [_ask(dice, templates, p=text), _call(tool, path=value), _done(dice)]

    return write


def _with_place(templates: tuple[str, ...], tool: str, **more: str) -> Write:
    def write(dice: Dice, world: World) -> Steps | None:
        text, value = place(dice, dice.choice(["", *world.folders, *world.folders]))
        return [_ask(dice, templates, d=text), _call(tool, path=value, **more), _done(dice)]

    return write


read = _with_path(READ, "read_text_file")
info = _with_path(INFO, "get_file_info")
list_folder = _with_place(LIST, "list_directory")
sizes = _with_place(SIZES, "list_directory_with_sizes")
biggest = _with_place(BIGGEST, "list_directory_with_sizes", sortBy="size")
tree = _with_place(TREE, "directory_tree")


def read_part(dice: Dice, world: World) -> Steps | None:
    text, value = said(dice, _text_file(dice, world))
    n, end = dice.randint(2, 40), dice.choice(("head", "tail"))
    part = _call("read_text_file", path=value, **{end: n})
    return [_ask(dice, HEAD if end == "head" else TAIL, p=text, n=n), part, _done(dice)]


def media(dice: Dice, world: World) -> Steps | None:
    path = next(path for path, content in world.files.items() if content == MEDIA)
    (text, value), extension = said(dice, path), path.rpartition(".")[2]
    templates = SOUND if extension in SOUNDS else PICTURE
    return [_ask(dice, templates, p=text, e=extension), _call("read_media_file", path=value), _done(dice)]


def several(dice: Dice, world: World) -> Steps | None:
    paths = dice.sample(world.texts(), min(len(world.texts()), dice.choice((2, 2, 3))))
    if len(paths) < 2:
        return None
    shown = [quoted(dice, path) for path in paths]
    spoken = dice.choice((" and ", " and ", " & ")).join((", ".join(shown[:-1]), shown[-1]))
    return [_ask(dice, SEVERAL, ps=spoken), _call("read_multiple_files", paths=paths), _done(dice)]


def write(dice: Dice, world: World) -> Steps | None:
    target = joined(dice.choice(["", *world.folders]), _name(dice))
    (text, value), (spoken, body) = said(dice, target, exists=False), _body(dice)
    return [_ask(dice, WRITE, p=text, c=spoken), _call("write_file", path=value, content=body), _done(dice)]


def _reworded(dice: Dice, line: str) -> str:
    # Another word of the same list: what a person would put there.
    for choices in (TODOS, VALUES, STEMS):
        for word in choices:
            if word in line:
                return line.replace(word, dice.choice([other for other in choices if other != word]))
    raise AssertionError(f"no word of this grammar in {line!r}")


def _change(dice: Dice, world: World) -> tuple[str, str, str, str, JsonObject] | None:
    path = _text_file(dice, world)
    lines = [line for line in world.files[path].splitlines() if world.files[path].count(line) == 1]
    if not lines:
        return None
    old = dice.choice(lines)
    new = _reworded(dice, old)
    (text, value), mark = said(dice, path), dice.choice(('"', '"', "'", "'" if old in TODOS else ""))
    return text, value, f"{mark}{old}{mark}", f"{mark}{new}{mark}", {"path": value, "edits": [{"oldText": old, "newText": new}]}


def edit(dice: Dice, world: World) -> Steps | None:
    change = _change(dice, world)
    if change is None:
        return None
    text, _, old, new, arguments = change
    return [_ask(dice, EDIT, p=text, a=old, b=new), _call("edit_file", **arguments), _done(dice)]


def mkdir(dice: Dice, world: World) -> Steps | None:
    target = joined(dice.choice(["", *world.folders]), dice.choice(STEMS))
    if target in world.files:
        return None
    text, value = said(dice, target, exists=False)
    return [_ask(dice, MKDIR, d=text), _call("create_directory", path=value), _done(dice)]


def move(dice: Dice, world: World) -> Steps | None:
    path = dice.choice(sorted(world.files))
    others = [folder for folder in world.folders if folder != parent(path)]
    if not others:
        return None
    (text, value), (into, goal) = said(dice, path), place(dice, dice.choice(others))
    return [_ask(dice, MOVE, p=text, q=into), _call("move_file", source=value, destination=joined(goal, base(path))), _done(dice)]


def rename(dice: Dice, world: World) -> Steps | None:
    path = _text_file(dice, world)
    (text, value), name = said(dice, path), _name(dice, path.rpartition(".")[2] if "." in base(path) else "")
    if joined(parent(path), name) in world.files:
        return None
    renamed = _call("move_file", source=value, destination=joined(parent(value), name))
    return [_ask(dice, RENAME, p=text, n=name), renamed, _done(dice)]


def find(dice: Dice, world: World) -> Steps | None:
    way, extension = dice.randrange(4), dice.choice(("toml", "html", "sql", "srt", "log", "webp", "pptx"))
    path, text = ".", ""
    if way == 0:
        text, path = place(dice, dice.choice(world.folders or [""]))
        asked, pattern = _ask(dice, FIND_EXT, e=f".{extension}", d=text), f"**/*.{extension}"
    elif way == 1:
        asked, pattern = _ask(dice, FIND_EXT_ALL, e=f".{extension}"), f"**/*.{extension}"
    elif way == 2:
        name = base(dice.choice(sorted(world.files)))
        asked, pattern = _ask(dice, FIND_NAME, n=quoted(dice, name)), f"**/{name}"
    else:
        word = dice.choice(STEMS[:40])
        asked, pattern = _ask(dice, FIND_WORD, w=f'"{word}"'), f"**/*{word}*"
    return [asked, _call("search_files", path=path, pattern=pattern), _done(dice)]


def allowed(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, ALLOWED), _call("list_allowed_directories"), _done(dice)]


def chat(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, CHAT), _done(dice)]


def outside(dice: Dice, world: World) -> Steps | None:
    path = quoted(dice, _text_file(dice, world))
    return [_ask(dice, OUTSIDE, p=path, s=dice.choice(("oil", "wheat", "gold", "house")), n=dice.randint(5, 11)), _done(dice)]


def find_then_read(dice: Dice, world: World) -> Steps | None:
    path = _text_file(dice, world, nested=True)
    if not path or not _once(world, path):
        return None
    search = _call("search_files", path=".", pattern=f"**/{base(path)}")
    asked = _ask(dice, FIND_READ, n=quoted(dice, base(path)))
    return [asked, search, _call("read_text_file", path=f"/workspace/{path}"), _done(dice)]


def list_then_read(dice: Dice, world: World) -> Steps | None:
    path = _text_file(dice, world, nested=True)
    if not path:
        return None
    text, value = place(dice, parent(path))
    templates, tool = dice.choice(((LIST_READ, "list_directory"), (NESTED, "directory_tree")))
    asked = _ask(dice, templates, d=text, n=quoted(dice, base(path)))
    return [asked, _call(tool, path=value), _call("read_text_file", path=joined(value, base(path))), _done(dice)]


def copy(dice: Dice, world: World) -> Steps | None:
    path, target = _text_file(dice, world), _name(dice)
    if target in world.files:
        return None
    again = _call("write_file", path=target, content=world.files[path])
    return [_ask(dice, COPY, p=quoted(dice, path), q=target), _call("read_text_file", path=path), again, _done(dice)]


def new_folder_then_move(dice: Dice, world: World) -> Steps | None:
    path, folder = dice.choice(sorted(world.files)), dice.choice(STEMS)
    if folder in world.files:
        return None
    moved = _call("move_file", source=path, destination=f"{folder}/{base(path)}")
    asked = _ask(dice, NEW_MOVE, d=folder, p=quoted(dice, path))
    return [asked, _call("create_directory", path=folder), moved, _done(dice)]


def read_then_edit(dice: Dice, world: World) -> Steps | None:
    change = _change(dice, world)
    if change is None:
        return None
    text, value, old, new, arguments = change
    asked = _ask(dice, FETCH_EDIT, p=text, a=old, b=new)
    return [asked, _call("read_text_file", path=value), _call("edit_file", **arguments), _done(dice)]


def find_then_move(dice: Dice, world: World) -> Steps | None:
    extension, target = base(_text_file(dice, world)).rpartition(".")[2], dice.choice(WORDS.folders)
    inside = sorted(path for path in world.files if path.endswith(f".{extension}"))
    if target in world.folders or not 1 <= len(inside) <= 2 or len({base(path) for path in inside}) < len(inside):
        return None
    moves = [_call("move_file", source=f"/workspace/{path}", destination=f"{target}/{base(path)}") for path in inside]
    asked = _ask(dice, FIND_MOVE, e=f".{extension}", d=quoted(dice, target))
    search = _call("search_files", path=".", pattern=f"**/*.{extension}")
    return [asked, search, _call("create_directory", path=target), *moves, _done(dice)]


def compare_two(dice: Dice, world: World) -> Steps | None:
    paths = dice.sample(sorted(world.files), 2)
    asked = _ask(dice, TWO, p=quoted(dice, paths[0]), q=quoted(dice, paths[1]))
    return [asked, *(_call("get_file_info", path=path) for path in paths), _done(dice)]


def sizes_then_read(dice: Dice, world: World) -> Steps | None:
    folder = dice.choice(["", *world.folders])
    inside = sorted(world.inside(folder), key=lambda path: len(world.files[path].encode()))
    if len(inside) < 2 or any(world.files[path] == MEDIA for path in inside):
        return None
    if len(world.files[inside[-1]].encode()) == len(world.files[inside[-2]].encode()):
        return None
    text, value = place(dice, folder)
    listing = _call("list_directory_with_sizes", path=value, sortBy="size")
    return [_ask(dice, HEAVIEST, d=text), listing, _call("read_text_file", path=joined(value, base(inside[-1]))), _done(dice)]


def roots(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, ROOTS), _call("list_allowed_directories"), _call("list_directory", path="/workspace"), _done(dice)]


def new_folder_then_write(dice: Dice, world: World) -> Steps | None:
    folder, name, (spoken, body) = dice.choice(STEMS), _name(dice), _body(dice)
    if folder in world.files:
        return None
    file = _call("write_file", path=f"{folder}/{name}", content=body)
    return [_ask(dice, NEW_WRITE, d=folder, n=name, c=spoken), _call("create_directory", path=folder), file, _done(dice)]


def write_then_check(dice: Dice, world: World) -> Steps | None:
    name, (spoken, body) = _name(dice), _body(dice)
    back = _call("read_text_file", path=name)
    return [_ask(dice, WRITE_BACK, p=name, c=spoken), _call("write_file", path=name, content=body), back, _done(dice)]


def missing(dice: Dice, world: World) -> Steps | None:
    """Wrong ending, wrong folder, or nowhere at all."""
    path, way = _text_file(dice, world, nested=True), dice.randrange(3)
    if not path or not _once(world, path):
        return None
    if way == 0:
        wrong = path.rpartition(".")[0] + ".doc" if "." in base(path)[1:] else f"{path}.doc"
        look, last = _call("list_directory", path=parent(path)), [_call("read_text_file", path=path)]
    else:
        wrong = base(path) if way == 1 else _name(dice)
        look = _call("search_files", path=".", pattern=f"**/{wrong}")
        last = [_call("read_text_file", path=f"/workspace/{path}")] if way == 1 else []
    if wrong in world.files or (way == 2 and any(base(other) == wrong for other in world.files)):
        return None
    first = Call(tool="read_text_file", arguments={"path": wrong}, fails=True)
    return [_ask(dice, READ, p=quoted(dice, wrong)), first, look, *last, _done(dice)]


def refused(dice: Dice, world: World) -> Steps | None:
    path = dice.choice(("/var/log/syslog", "/home/ana/diary.txt", "../secrets.env", "/usr/lib/os-release", "/boot/loader.conf"))
    denied = Call(tool="read_text_file", arguments={"path": path}, fails=True)
    return [_ask(dice, READ, p=path), denied, _call("list_allowed_directories"), _done(dice)]


def follow_ups(dice: Dice, world: World) -> Steps | None:
    """A first request, then a second one that only the first explains."""
    way, folder = dice.randrange(6), dice.choice(world.folders or [""])
    text_in = [path for path in world.texts() if parent(path) == folder]
    if way == 0 and folder and text_in:
        name = base(dice.choice(text_in))
        listed: Steps = [_ask(dice, LIST, d=quoted(dice, folder)), _call("list_directory", path=folder), _done(dice)]
        asked = _ask(dice, THEN_FETCH_NAMED, n=quoted(dice, name))
        return [*listed, asked, _call("read_text_file", path=f"{folder}/{name}"), _done(dice)]
    path = _text_file(dice, world)
    opening: Steps = [_ask(dice, READ, p=quoted(dice, path)), _call("read_text_file", path=path), _done(dice)]
    if way == 1:
        return [*opening, _ask(dice, THEN_ABOUT), _done(dice)]
    if way == 2:
        return [*opening, _ask(dice, THEN_INFO), _call("get_file_info", path=path), _done(dice)]
    if way == 3:
        name = _name(dice, path.rpartition(".")[2] if "." in base(path) else "")
        if joined(parent(path), name) in world.files:
            return None
        renamed = _call("move_file", source=path, destination=joined(parent(path), name))
        return [*opening, _ask(dice, THEN_RETITLE, n=name), renamed, _done(dice)]
    if way == 4 and folder and folder != parent(path):
        text, value = place(dice, folder)
        moved = _call("move_file", source=path, destination=joined(value, base(path)))
        return [*opening, _ask(dice, THEN_SHIFT, d=text), moved, _done(dice)]
    if way == 5 and folder:
        text, value = place(dice, folder)
        return [*opening, _ask(dice, THEN_LIST, d=text), _call("list_directory", path=value), _done(dice)]
    first: Steps = [_ask(dice, INFO, p=quoted(dice, path)), _call("get_file_info", path=path), _done(dice)]
    return [*first, _ask(dice, THEN_FETCH), _call("read_text_file", path=path), _done(dice)]


GRAMMAR = Grammar(
    name="filesystem_heldout",
    words=WORDS,
    systems=(
        "You manage the shared drive of a small office.", "Keep replies short.", "You are Mara, an archivist.",
        "Answer in plain words.",
    ),
    finish=finish,
    scenes=tuple(
        Scene(kind, weight, scene)
        for kind, weight, scene in (
            ("read", 4, read), ("read_part", 2, read_part), ("media", 3, media), ("read_several", 3, several),
            ("write", 4, write), ("edit", 4, edit), ("mkdir", 3, mkdir), ("list", 4, list_folder), ("sizes", 2, sizes),
            ("biggest", 2, biggest), ("tree", 3, tree), ("move", 3, move), ("rename", 3, rename), ("find", 5, find),
            ("info", 4, info), ("allowed", 2, allowed), ("chat", 6, chat), ("outside", 6, outside),
            ("find_then_read", 3, find_then_read), ("list_then_read", 2, list_then_read), ("copy", 2, copy),
            ("new_folder_then_move", 2, new_folder_then_move), ("read_then_edit", 2, read_then_edit),
            ("find_then_move", 2, find_then_move), ("compare_two", 2, compare_two), ("sizes_then_read", 1.5, sizes_then_read),
            ("roots", 1, roots), ("new_folder_then_write", 2, new_folder_then_write), ("write_then_check", 2, write_then_check),
            ("missing", 4, missing), ("refused", 1, refused), ("follow_ups", 6, follow_ups),
        )
    ),
)  # fmt: skip
