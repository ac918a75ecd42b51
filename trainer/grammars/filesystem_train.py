"""Goals of two to six steps for training, errors and second questions included; single steps are in filesystem_train_single."""

from __future__ import annotations

from trainer.episodes import Ask, Call, Say
from trainer.grammars import filesystem_train_single as one
from trainer.grammars.filesystem_train_single import WORDS, content, place, said
from trainer.grammars.mechanics import MEDIA, Dice, Grammar, Scene, Steps, World, base, joined, parent

FIND_READ = (
    "(find|locate|search for) {n} and (read|open|show) it(| to me)",
    "there is a file {n} somewhere, what does it say?",
    "(find|search for) {n}, then (tell me what is in it|show me the contents)",
    "i don't know where {n} is, can you open it(|?)",
)
LIST_READ = (
    "(list|check) {d} and (read|open|show) {n}",
    "(look|check) in {d}, then (read|show me) {n}",
    "what's in {d}? (and show me|then open) {n}",
)
LIST_ALL = (
    "(read|open|summarize) (all|every one of) the files in {d}",
    "(list|look into) {d} and (read|show me) everything in it",
    "what do the files in {d} say(|?)",
)
COPY = (
    "copy {p} to {q}",
    "(make|create) a copy of {p} (called|named|at) {q}",
    "(read|open) {p} and (save|write) the same text to {q}",
)
NEW_MOVE = (
    "(create|make) (the folder|a folder) {d} and (move|put) {p} (into|in) it",
    "move {p} (to|into) a new (folder|directory) {d}",
    "mkdir {d} && mv {p} {d}",
)
READ_EDIT = (
    "(read|open|show) {p}, then (replace|change) {a} (with|to) {b}",
    "look at {p} and (change|update) {a} to {b}",
)
FIND_MOVE = (
    "(find|search for) (all|the) {e} files and (move|put) them (to|into|in) {d}",
    "(move|put) (all|every) {e} (files|file) (to|into|in) {d}",
)
INFO_TWO = ("which is (bigger|larger|newer|older), {p} or {q}(|?)", "compare the (size|age) of {p} and {q}")
SIZES_READ = ("(read|open|show me) the (biggest|largest) file in {d}", "what does the (largest|biggest) file in {d} say(|?)")
TREE_READ = ("(show|print) the tree of {d}, then (read|open) {p}", "how is {d} structured? (and|then) show me {p}")
ROOTS_LIST = (
    "(show|list) the directories you can access and what is in them",
    "which folders may you use, and (what files are there|what's in them)(|?)",
)
NEW_WRITE = (
    "(create|make) a folder {d} (with|and in it) a file {n} (that says|containing|with) {c}",
    "mkdir {d} and (write|save) {c} to {n} in it",
)
WRITE_CHECK = (
    "(write|save) {c} to {p} and (read|show) it (back|again)",
    "save {c} in {p}, then (check|show me) that it is there",
)
EDIT_CHECK = (
    "(change|replace) {a} (to|with) {b} in {p} and show me the (result|file)",
    "(update|fix) {a} to {b} in {p}, then (read|open) it",
)
THEN_INFO = (
    "(how big is it|how large is it|and its size|what is its size|when was it (changed|modified))(|?)",
    "(show|get) its (info|metadata|details)",
)
THEN_READ = ("(read|open|show) (it|that file)(| please)", "and what (is in it|does it say)(|?)", "(show|give) me the contents")
THEN_READ_NAMED = ("(read|open|show me) {n}(| please)", "(what is in|what's in) {n}(|?)", "now {n}")
THEN_RENAME = ("(rename it|now rename it) to {n}", "(call|name) it {n} instead(|, rename it)")
THEN_MOVE = ("(move|put) it (to|into|in) {d}", "now move it to {d}")
THEN_EDIT = ("(replace|change) {a} (with|to) {b}", "now (change|replace) {a} (to|with) {b} (in it|there)")
THEN_LIST = ("(what else is in|list|now list|show me) {d}(|?)", "and (what is in|what about) {d}(|?)")
THEN_ABOUT = (
    "(which one is the (longest|shortest)|what do you think of it|is that (good|all|right))(|?)",
    "(summarize|explain) (that|it) (for me|in one sentence|briefly)",
    "(so|and) how many (are there|is that)(|?)",
    "(tell me|say) more about (that|it)",
)


def _answer(dice: Dice) -> Say:
    return Say(text=dice.choice(("Done.", "Here is what I found.", "That is it.", "It is done.", "Here you are.")))


def _found(path: str) -> str:
    return f"/workspace/{path}"


def _read(path: str, *, fails: bool = False) -> Call:
    return Call(tool="read_text_file", arguments={"path": path}, fails=fails)


def _search(pattern: str, path: str = ".") -> Call:
    return Call(tool="search_files", arguments={"path": path, "pattern": pattern})


def _text_in_folder(dice: Dice, world: World) -> str | None:
    return dice.choice([path for path in world.texts() if parent(path)] or [""]) or None


def find_then_read(dice: Dice, world: World) -> Steps | None:
    """Where it is, then what it says."""
    path = _text_in_folder(dice, world)
    if path is None or sum(base(other) == base(path) for other in world.files) > 1:
        return None
    ask = Ask(text=dice.text(FIND_READ, n=base(path)))
    return [ask, _search(f"**/{base(path)}"), _read(_found(path)), _answer(dice)]


def list_then_read(dice: Dice, world: World) -> Steps | None:
    """A folder, then one of its files."""
    path = _text_in_folder(dice, world)
    if path is None:
        return None
    text, value = place(dice, parent(path))
    ask = Ask(text=dice.text(LIST_READ, d=text, n=base(path)))
    return [ask, Call(tool="list_directory", arguments={"path": value}), _read(joined(value, base(path))), _answer(dice)]


def list_then_read_all(dice: Dice, world: World) -> Steps | None:
    """A folder, then all its files at once."""
    folder = dice.choice(world.folders or [""])
    inside = world.inside(folder)
    if not folder or not 2 <= len(inside) <= 3 or any(world.files[path] == MEDIA for path in inside):
        return None
    text, value = place(dice, folder)
    paths = [joined(value, base(path)) for path in inside]
    listing = Call(tool="list_directory", arguments={"path": value})
    return [
        Ask(text=dice.text(LIST_ALL, d=text)),
        listing,
        Call(tool="read_multiple_files", arguments={"paths": paths}),
        _answer(dice),
    ]


def copy(dice: Dice, world: World) -> Steps | None:
    """There is no tool for copies: read, then write the same."""
    path = one._some_file(dice, world)
    if path is None:
        return None
    target = joined(dice.choice(["", *world.folders]), one._new_name(dice))
    write = Call(tool="write_file", arguments={"path": target, "content": world.files[path]})
    return [Ask(text=dice.text(COPY, p=path, q=target)), _read(path), write, _answer(dice)]


def new_folder_then_move(dice: Dice, world: World) -> Steps | None:
    """A folder, then what goes into it."""
    path, folder = dice.choice(sorted(world.files)), dice.choice(WORDS.stems)
    make = Call(tool="create_directory", arguments={"path": folder})
    move = Call(tool="move_file", arguments={"source": path, "destination": joined(folder, base(path))})
    return [Ask(text=dice.text(NEW_MOVE, d=folder, p=path)), make, move, _answer(dice)]


def read_then_edit(dice: Dice, world: World) -> Steps | None:
    """A look before the change."""
    path = one._some_file(dice, world)
    line = path and one._line(dice, world.files[path])
    if not path or not line:
        return None
    (text, value), new = said(dice, path), dice.choice(one._THINGS)
    change = Call(tool="edit_file", arguments={"path": value, "edits": [{"oldText": line, "newText": new}]})
    if dice.one_in(2):
        return [Ask(text=dice.text(READ_EDIT, p=text, a=line, b=new)), _read(value), change, _answer(dice)]
    return [Ask(text=dice.text(EDIT_CHECK, p=text, a=line, b=new)), change, _read(value), _answer(dice)]


def find_then_move(dice: Dice, world: World) -> Steps | None:
    """Every file that a search shows, one call after another."""
    extension, target = one._extension(dice, world), dice.choice(WORDS.folders)
    inside = sorted(path for path in world.files if path.endswith(f".{extension}"))
    if target in world.folders or not 1 <= len(inside) <= 3 or len({base(path) for path in inside}) < len(inside):
        return None
    return [
        Ask(text=dice.text(FIND_MOVE, e=f".{extension}", d=f"a new folder {target}")),
        _search(f"**/*.{extension}"),
        Call(tool="create_directory", arguments={"path": target}),
        *(
            Call(tool="move_file", arguments={"source": _found(path), "destination": f"{target}/{base(path)}"})
            for path in _in_walking_order(inside)
        ),
        _answer(dice),
    ]


def _in_walking_order(paths: list[str]) -> list[str]:
    # The server lists as the file system gives entries; the gold order is the alphabet's, whatever was listed first.
    return sorted(paths)


def compare_two(dice: Dice, world: World) -> Steps | None:
    """The metadata of both."""
    if len(world.files) < 2:
        return None
    first, second = dice.sample(sorted(world.files), 2)
    calls = [Call(tool="get_file_info", arguments={"path": path}) for path in (first, second)]
    return [Ask(text=dice.text(INFO_TWO, p=first, q=second)), *calls, _answer(dice)]


def sizes_then_read(dice: Dice, world: World) -> Steps | None:
    """The largest file of a folder."""
    folder = dice.choice(["", *world.folders])
    inside = world.inside(folder)
    if len(inside) < 2 or any(world.files[path] == MEDIA for path in inside):
        return None
    ranked = sorted(inside, key=lambda path: len(world.files[path].encode()))
    if len(world.files[ranked[-1]].encode()) == len(world.files[ranked[-2]].encode()):
        return None
    text, value = place(dice, folder)
    listing = Call(tool="list_directory_with_sizes", arguments={"path": value, "sortBy": "size"})
    return [Ask(text=dice.text(SIZES_READ, d=text)), listing, _read(joined(value, base(ranked[-1]))), _answer(dice)]


def tree_then_read(dice: Dice, world: World) -> Steps | None:
    """The structure, then a file of it."""
    path = _text_in_folder(dice, world)
    if path is None:
        return None
    text, value = place(dice, parent(path))
    ask = Ask(text=dice.text(TREE_READ, d=text, p=base(path)))
    return [ask, Call(tool="directory_tree", arguments={"path": value}), _read(joined(value, base(path))), _answer(dice)]


def roots_then_list(dice: Dice, world: World) -> Steps | None:
    """Where one may look, then a look."""
    listing = Call(tool="list_directory", arguments={"path": "/workspace"})
    return [Ask(text=dice.text(ROOTS_LIST)), Call(tool="list_allowed_directories", arguments={}), listing, _answer(dice)]


def new_folder_then_write(dice: Dice, world: World) -> Steps | None:
    """A folder, then a file in it."""
    folder, name, (spoken, body) = dice.choice(WORDS.stems), one._new_name(dice), content(dice)
    write = Call(tool="write_file", arguments={"path": f"{folder}/{name}", "content": body})
    ask = Ask(text=dice.text(NEW_WRITE, d=folder, n=name, c=spoken))
    return [ask, Call(tool="create_directory", arguments={"path": folder}), write, _answer(dice)]


def write_then_check(dice: Dice, world: World) -> Steps | None:
    """Written, then read back."""
    path, (spoken, body) = one._new_name(dice), content(dice)
    write = Call(tool="write_file", arguments={"path": path, "content": body})
    return [Ask(text=dice.text(WRITE_CHECK, p=path, c=spoken)), write, _read(path), _answer(dice)]


def missing_then_listed(dice: Dice, world: World) -> Steps | None:
    """The path was wrong: list its folder, read the one that was meant."""
    path = _text_in_folder(dice, world)
    if path is None or "." not in base(path)[1:]:
        return None
    stem, _, extension = path.rpartition(".")
    wrong = dice.choice(
        (
            f"{stem}s.{extension}",
            f"{stem}.{'md' if extension == 'txt' else 'txt'}",
            f"{stem.upper() if parent(path) == '' else stem}1.{extension}",
        )
    )
    if wrong in world.files:
        return None
    ask = Ask(text=dice.text(one.READ, p=wrong))
    listing = Call(tool="list_directory", arguments={"path": parent(path)})
    return [ask, _read(wrong, fails=True), listing, _read(path), _answer(dice)]


def missing_then_found(dice: Dice, world: World) -> Steps | None:
    """Not where the user thought: search, then read where it is."""
    path = _text_in_folder(dice, world)
    if path is None or base(path) in world.files or sum(base(other) == base(path) for other in world.files) > 1:
        return None
    ask = Ask(text=dice.text(one.READ, p=base(path)))
    return [ask, _read(base(path), fails=True), _search(f"**/{base(path)}"), _read(_found(path)), _answer(dice)]


def missing_for_good(dice: Dice, world: World) -> Steps | None:
    """Nowhere: say so."""
    name = one._new_name(dice)
    if any(base(path) == name for path in world.files):
        return None
    ask = Ask(text=dice.text(one.READ, p=name))
    return [ask, _read(name, fails=True), _search(f"**/{name}"), Say(text=f"There is no file {name}.")]


def refused(dice: Dice, world: World) -> Steps | None:
    """Outside of what is allowed: say where one can look."""
    path = dice.choice(
        ("/etc/hosts", "/root/.ssh/id_rsa", "../secret.txt", "/home/anna/a.txt", "/var/log/syslog", "/tmp/x.json", "/usr/lib")
    )
    ask = Ask(text=dice.text(one.READ, p=path))
    return [
        ask,
        _read(path, fails=True),
        Call(tool="list_allowed_directories", arguments={}),
        Say(text="I may only use /workspace."),
    ]


def follow_ups(dice: Dice, world: World) -> Steps | None:
    """One question, then one or two about the same thing."""
    opening = dice.choice(
        (one.list_folder, one.read, one.find, one.write, one.sizes, one.info, one.allowed, one.tree, one.move, one.edit)
    )
    steps = opening(dice, world)
    if not steps:
        return None
    for _ in range(dice.choice((1, 1, 2))):
        more = _one_more(dice, world, steps)
        if more is None:
            return None
        steps = [*steps, *more, _answer(dice)]
    return steps


def _one_more(dice: Dice, world: World, steps: Steps) -> Steps | None:
    call = next(step for step in reversed(steps) if isinstance(step, Call))
    path = str(call.arguments.get("destination") or call.arguments.get("path", ""))
    way = dice.randrange(7)
    if way == 0:
        return [Ask(text=dice.text(dice.choice((one.AFTER_CHAT, THEN_ABOUT))))]
    if way == 1:
        text, value = place(dice, dice.choice(world.folders or [""]))
        return [Ask(text=dice.text(THEN_LIST, d=text)), Call(tool="list_directory", arguments={"path": value})]
    if call.tool == "list_directory":
        inside = [name for name in world.texts() if parent(name) == path.removeprefix("/workspace").strip("./")]
        if not inside:
            return None
        name = base(dice.choice(inside))
        return [Ask(text=dice.text(THEN_READ_NAMED, n=name)), _read(joined(path, name))]
    if call.tool not in ("read_text_file", "write_file", "get_file_info", "edit_file", "move_file") or path.startswith("/etc"):
        return None
    if way < 4:
        return [Ask(text=dice.text(THEN_INFO)), Call(tool="get_file_info", arguments={"path": path})]
    if call.tool != "read_text_file" and way == 4 and path.removeprefix("/workspace/").removeprefix("./") not in _media(world):
        return [Ask(text=dice.text(THEN_READ)), _read(path)]
    if call.tool == "move_file" or any(isinstance(step, Call) and step.tool == "move_file" for step in steps):
        return None
    name = one._new_name(dice, path.rpartition(".")[2] if "." in base(path) else "")
    if way == 5 or not world.folders:
        arguments = {"source": path, "destination": joined(parent(path), name)}
        return [Ask(text=dice.text(THEN_RENAME, n=name)), Call(tool="move_file", arguments=arguments)]
    text, value = place(dice, dice.choice(world.folders))
    arguments = {"source": path, "destination": joined(value, base(path))}
    return [Ask(text=dice.text(THEN_MOVE, d=text)), Call(tool="move_file", arguments=arguments)]


def _media(world: World) -> list[str]:
    return [path for path, text in world.files.items() if text == MEDIA]


def chat_then_call(dice: Dice, world: World) -> Steps | None:
    """Small talk first."""
    more = dice.choice((one.list_folder, one.read, one.find, one.mkdir, one.tree))(dice, world)
    return more and [*(one.chat(dice, world) or []), *more]


GRAMMAR = Grammar(
    name="filesystem_train",
    words=WORDS,
    systems=(
        "You are a helpful assistant.",
        "You help people with their files.",
        "You are a file manager. Answer briefly.",
        "Use the tools when they help. Today is Monday.",
        "You are the assistant of a small office. Be polite and precise, and never make things up.",
    ),
    finish=one.finish,
    scenes=(
        Scene("read", 6, one.read), Scene("read_part", 4, one.read_part), Scene("read_file", 2, one.read_deprecated,
        names_tool=True),
        Scene("media", 4, one.media), Scene("read_several", 5, one.read_several), Scene("write", 7, one.write),
        Scene("edit", 7, one.edit), Scene("mkdir", 4, one.mkdir), Scene("list", 5, one.list_folder), Scene("sizes", 5, one.sizes),
        Scene("tree", 5, one.tree), Scene("move", 5, one.move), Scene("rename", 4, one.rename), Scene("find", 8, one.find),
        Scene("info", 5, one.info), Scene("allowed", 3, one.allowed), Scene("chat", 8, one.chat), Scene("outside", 7,
        one.outside),
        Scene("find_then_read", 3, find_then_read), Scene("list_then_read", 2, list_then_read),
        Scene("list_then_read_all", 2, list_then_read_all), Scene("copy", 2.5, copy), Scene("new_folder_then_move", 2,
        new_folder_then_move),
        Scene("read_then_edit", 2.5, read_then_edit), Scene("find_then_move", 2.5, find_then_move), Scene("compare_two", 2,
        compare_two),
        Scene("sizes_then_read", 2, sizes_then_read), Scene("tree_then_read", 1.5, tree_then_read),
        Scene("roots_then_list", 1.5, roots_then_list), Scene("new_folder_then_write", 2, new_folder_then_write),
        Scene("write_then_check", 2, write_then_check), Scene("missing_then_listed", 2.5, missing_then_listed),
        Scene("missing_then_found", 2.5, missing_then_found), Scene("missing_for_good", 2, missing_for_good),
        Scene("refused", 1.5, refused), Scene("follow_ups", 9, follow_ups), Scene("chat_then_call", 2, chat_then_call),
    ),
)  # fmt: skip
