"""How other users speak to the filesystem toolset: for evaluation only, never for training.

Written apart from the training grammar: other verbs, other templates, other names, other ways to point at a path. The
conventions of the gold calls are the same, for they are what is to be learned.
"""

from __future__ import annotations

from collections.abc import Callable

from services.shared.contracts.tools import JsonObject
from trainer.episodes import Ask, Call, Say
from trainer.grammars.mechanics import MEDIA, Dice, Grammar, Scene, Steps, Vocabulary, World, base, joined, parent, words

Write = Callable[[Dice, World], Steps | None]

_MATTERS = words(
    "turbine,orchid,kestrel,ledger,quarry,lantern,vineyard,harbour,compass,falcon,granite,saffron,tundra,violin,walnut,zephyr,"
    "anchor,bamboo,cobalt,dynamo,ember,fjord,glacier,hazel,iris,jasper,kiosk,lagoon,magnet,nectar,onyx,pepper,quartz,rocket,"
    "beacon,canyon,drizzle,eclipse,fossil,gazette,horizon,isotope"
)
_NOTES = words(
    "polish the brass,ring the dentist,oil the hinges,feed Rex,sharpen pencils,sweep the attic,sort coins,wax the skis"
)
_OPTIONS = words("speed,depth,width,gain,quota,zone,unit,ratio")
_SETTINGS = words("17,42,high,low,north,metric,0.5,off,manual")


def _notes(dice: Dice) -> str:
    return "\n".join(dice.sample(_NOTES, dice.randint(2, 4))) + "\n"


def _options(dice: Dice) -> str:
    return "".join(f"{option}: {dice.choice(_SETTINGS)}\n" for option in dice.sample(_OPTIONS, dice.randint(2, 4)))


def _cells(dice: Dice) -> str:
    return "\n".join(["item;amount", *(f"{dice.choice(_MATTERS)};{dice.randint(100, 999)}" for _ in range(2))]) + "\n"


WORDS = Vocabulary(

    folders=words(
        "workshop,greenhouse,blueprints,cargo,minutes,field notes,q3,vault,studio,radar,pantry,Dépôt,atlas,bin2,observatory"
    ),
    stems=[stem if i % 4 else f"{stem}{'_-. '[i // 4 % 4]}{_MATTERS[(i * 7 + 3) % len(_MATTERS)]}" for i,
    stem in enumerate(_MATTERS)],
    kinds={
        "rst": _notes, "conf": _options, "dat": _cells, "cfg": _options, "rb": _options, "lst": _notes, "txt": _notes,
        "md": _notes,
        "properties": _options, "csv": _cells, "org": _notes, "": _notes,
    },
    media=words("jpeg,bmp,ogg,flac,svg,png"),
    odd_stems=words("CHANGES,straße,notes (final),naïve plan,x86_64,Ünlü,2024-05-01,a+b,LICENSE.old,piñata"),
)  # fmt: skip

# Every verb of this grammar: the training grammar may use none of them, and these none of its own.
VERBS = frozenset(
    words(
        "pull,dump,fetch,peek,recite,haul,reveal,enumerate,browse,survey,shift,relocate,transfer,retitle,rebrand,hunt,track,spot,"
        "swap,substitute,amend,correct,jot,record,compose,produce,establish,spin,lay,contrast,review,bring,let,walk,grab,"
        "unfold,scan,examine,measure,note"
    )
)

READ = (
    "pull up {p}",
    "let me (have|get) {p}",
    "dump {p} (to the chat|for me|)",
    "fetch {p}(| right away| would you)",
    "what's the wording of {p}?",
    "recite {p}",
    "bring up the text inside {p}",
    "would you mind hauling in {p}?",
    "{p}: what's it about?",
    "I'd love to know what {p} holds",
)
HEAD = (
    "peek at the opening {n} lines of {p}",
    "just the initial {n} lines of {p}, if you would",
    "grab {n} lines off the start of {p}",
)
TAIL = (
    "grab the closing {n} lines of {p}",
    "the final {n} lines of {p}, if you would",
    "only {n} lines from the very end of {p}",
)
MEDIA_READ = (
    "pull up the (photograph|artwork|recording) {p}",
    "let me (admire|hear|watch) {p}",
    "haul in the {e} {p} so we can examine it",
    "bring {p} on screen",
    "fetch the media {p}",
)
SEVERAL = (
    "pull up {ps}, all in one request",
    "contrast {ps}",
    "dump {ps} side by side",
    "fetch {ps} together",
    "I'd like the wording of {ps}",
    "review {ps}",
)
WRITE = (
    "jot {c} down in {p}",
    "record {c} under {p}",
    "produce {p} holding {c}",
    "compose {p}, its only text being {c}",
    "note {c} in a fresh file {p}",
    "let {p} hold {c}",
)
EDIT = (
    "swap {a} for {b} in {p}",
    "substitute {b} for {a} in {p}",
    "amend {p}: {a} becomes {b}",
    "in {p}, {a} ought to become {b}",
    "correct {a} into {b} within {p}",
    "turn {a} into {b} inside {p}",
)
MKDIR = (
    "establish a directory {d}",
    "spin up a folder named {d}",
    "we'll require a folder {d}",
    "lay out a fresh directory {d}",
    "produce an empty folder at {d}",
)
LIST = (
    "enumerate {d}",
    "what sits in {d}?",
    "browse {d}",
    "let me know which items {d} holds",
    "peek inside {d}",
    "what do I keep in {d}?",
    "any items within {d}?",
)
SIZES = (
    "enumerate {d} along with bytes per file",
    "how heavy is each item in {d}?",
    "measure the files within {d}",
    "what amount of storage do the items of {d} use?",
    "items of {d} plus their sizes",
)
BIGGEST = ("what's the heaviest item in {d}?", "rank {d} from heavy to light by size", "who hogs the most space in {d}?")
TREE = (
    "unfold {d} all the way down",
    "walk me through the entire nesting of {d}",
    "let me have {d} as a nested outline",
    "sketch {d} with every level, tree-like",
    "survey {d} with all its nested folders",
)
MOVE = ("shift {p} over to {q}", "relocate {p} into {q}", "transfer {p} into {q}", "{p} belongs in {q}, please relocate it")
RENAME = ("retitle {p} as {n}", "rebrand {p} to {n}", "let {p} go by {n} from now on", "{p} ought to go by the name {n}")
FIND_EXT = ("hunt for {e} files within {d}", "track down whatever {e} files {d} holds", "spot every {e} file beneath {d}")
FIND_EXT_ALL = (
    "hunt down every {e} file",
    "track down all my {e} files",
    "scan all folders for {e} files",
    "got any {e} files around?",
)
FIND_NAME = ("track down {n}", "hunt for {n}, no clue where it sits", "I lost {n}, any idea where it went?", "spot {n} for me")
FIND_WORD = (
    "track down files whose name includes {w}",
    "hunt for anything titled with {w}",
    "scan for filenames that include {w}",
)
INFO = (
    "what's the byte count of {p}?",
    "on which date was {p} touched last?",
    "let me have the stats on {p}",
    "examine the attributes of {p}",
    "how heavy is {p}?",
    "fetch timestamps for {p}",
    "are we permitted to alter {p}?",
)
ALLOWED = (
    "which areas are within your reach?",
    "what's the boundary of your file access?",
    "let me know the directories available to you",
    "enumerate your permitted directories",
    "how far does your access reach on this machine?",
)
CHAT = (
    "(greetings|howdy|yo|cheers)(|!| friend)",
    "(how tall is Everest|who discovered penicillin|which planet is the closest to the sun)?",
    "compose a (haiku|sonnet|rhyme) on (rain|libraries|paper)",
    "(how does|why does) a (vaccine|battery|rainbow) (work|appear)?",
    "(square root of 81|half of 250|9 squared)?",
    "what are good habits for (sleeping well|studying|keeping notes tidy)?",
    "what does the extension (conf|rst|flac) stand for?",
    "(much appreciated|brilliant|splendid|that'll do)(|!| for today)",
    "which command lets me (browse|relocate) files in powershell?",
    "what's your name?",
    "(I feel lonely|my dog is ill|I got promoted)",
)
OUTSIDE = (
    "(will it rain|is it sunny) in (Lisbon|Cairo|Quito) (tonight|this weekend)?",
    "(text|ring|notify) (Grandma|the landlord|Priya) that I'm late",
    "(erase|destroy|wipe|trash) {p}",
    "(compile|debug|deploy) {p}",
    "(archive|bundle) {p} as a tarball",
    "(order|buy) (two pizzas|printer ink|a taxi)",
    "(remind|wake) me at {n}",
    "(google|browse the web for) {s}",
    "(reboot|power off) the (router|machine|laptop)",
    "(fax|post) {p} to the office",
    "who won the (match|election|race) yesterday?",
    "(sign|watermark) {p} digitally",
)
FIND_READ = ("track down {n} and recite it", "hunt for {n}, afterwards pull up its text", "I lost {n}; once spotted, dump it")
LIST_READ = ("browse {d}, afterwards pull up {n}", "enumerate {d} and fetch {n}")
COPY = ("duplicate {p} as {q}", "clone {p} into {q}")
NEW_MOVE = ("establish a folder {d} and shift {p} there", "spin up {d} as a folder, afterwards relocate {p} into it")
FETCH_EDIT = ("fetch {p} first, afterwards swap {a} for {b}", "pull up {p}, then substitute {b} for {a}")
FIND_MOVE = ("hunt down the {e} files and shift them into a fresh folder {d}", "collect all {e} files in a fresh folder {d}")
TWO = ("of {p} and {q}, which weighs more?", "{p} versus {q}: which got touched most recently?")
HEAVIEST = ("pull up whichever file of {d} is the heaviest", "recite the heaviest file within {d}")
NESTED = ("unfold {d} all the way down, afterwards fetch {n}",)
ROOTS = ("enumerate your permitted directories along with their items",)
NEW_WRITE = ("establish a folder {d}, and within it {n} holding {c}", "spin up a folder {d} and jot {c} down in {n} there")
WRITE_BACK = ("jot {c} down in {p}, afterwards recite it back", "record {c} under {p} and pull it up again")
THEN_INFO = ("how heavy is that one?", "when did anyone last touch it?", "its byte count?")
THEN_FETCH = ("pull it up", "what's its wording?", "dump it for me")
THEN_FETCH_NAMED = ("pull up {n}", "fetch {n}, would you")
THEN_RETITLE = ("retitle it as {n}", "let it go by {n}")
THEN_SHIFT = ("shift it over to {d}", "relocate it into {d}")
THEN_LIST = ("now browse {d}", "and what sits in {d}?")
THEN_ABOUT = (
    "what's your impression?",
    "anything surprising there?",
    "rephrase that in plain words",
    "cheers, that'll do",
    "much appreciated!",
)


def said(dice: Dice, path: str) -> tuple[str, str]:
    """A path as these users write it, and as a call has to give it."""
    style = dice.randrange(10)
    if parent(path) and style < 2:
        return dice.choice((f"{base(path)}, which lives in {parent(path)}", f"{base(path)} (folder {parent(path)})")), path
    value = {2: f"/workspace/{path}", 3: f"/workspace/{path}", 4: f"./{path}"}.get(style, path)
    return (f"«{value}»" if dice.one_in(12) else f'"{value}"' if " " in value or dice.one_in(6) else value), value


def place(dice: Dice, folder: str) -> tuple[str, str]:
    """A folder as these users call it, and as a call has to give it."""
    if not folder:
        return dice.choice(
            (("the top level", "."), ("my files", "."), ("the main folder", "."), ("/workspace", "/workspace"), ("here", "."))
        )
    style = dice.randrange(6)
    value = {0: f"/workspace/{folder}", 1: f"{folder}/"}.get(style, folder)
    return (dice.choice((f"our {folder} directory", f"the directory {folder}")) if style in (2, 3) else value), value


def finish(dice: Dice, text: str, kept: object) -> str:
    """Their manners."""
    way = dice.randrange(10)
    if way == 0:
        return f"So, {text}"
    if way == 1:
        return f"{text} - cheers"
    if way == 2:
        return f"If it isn't too much trouble: {text}"
    if way == 3:
        return (
            text.lower() if isinstance(kept, list) and not any(part.lower() != part and part in text for part in kept) else text
        )
    return text


def _ask(dice: Dice, templates: tuple[str, ...], **slots: object) -> Ask:
    return Ask(text=dice.text(templates, **slots))


def _name(dice: Dice, extension: str | None = None) -> str:
    extension = dice.choice(("rst", "conf", "txt", "lst")) if extension is None else extension
    return f"{dice.choice(WORDS.stems)}.{extension}" if extension else dice.choice(WORDS.stems)


def _text_file(dice: Dice, world: World, *, nested: bool = False) -> str:
    paths = [path for path in world.texts() if parent(path)] if nested else world.texts()
    return dice.choice(paths or [""])


def _once(world: World, path: str) -> bool:
    return sum(base(other) == base(path) for other in world.files) == 1


def _body(dice: Dice) -> tuple[str, str]:
    value = dice.choice(
        (*_NOTES, f"{dice.choice(_OPTIONS)}: {dice.choice(_SETTINGS)}", f"{dice.choice(_MATTERS)}, {dice.choice(_MATTERS)}")
    )
    return (value, value) if dice.one_in(2) else (f'"{value}"', value)


def _call(tool: str, **arguments: object) -> Call:
    return Call(tool=tool, arguments=arguments)


def _done(dice: Dice) -> Say:
    return Say(text=dice.choice(("Sure, there you go.", "All set.", "Finished.")))


def _with_path(templates: tuple[str, ...], tool: str, media: bool = False) -> Write:
    def write(dice: Dice, world: World) -> Steps | None:
        path = next(p for p, text in world.files.items() if text == MEDIA) if media else _text_file(dice, world)
        text, value = said(dice, path)
        return [_ask(dice, templates, p=text, e=path.rpartition(".")[2]), _call(tool, path=value), _done(dice)] if path else None

    return write


def _with_place(templates: tuple[str, ...], tool: str, **more: str) -> Write:
    def write(dice: Dice, world: World) -> Steps | None:
        text, value = place(dice, dice.choice(["", *world.folders, *world.folders]))
        return [_ask(dice, templates, d=text), _call(tool, path=value, **more), _done(dice)]

    return write


read = _with_path(READ, "read_text_file")
media = _with_path(MEDIA_READ, "read_media_file", media=True)
info = _with_path(INFO, "get_file_info")
list_folder = _with_place(LIST, "list_directory")
sizes = _with_place(SIZES, "list_directory_with_sizes")
biggest = _with_place(BIGGEST, "list_directory_with_sizes", sortBy="size")
tree = _with_place(TREE, "directory_tree")


def read_part(dice: Dice, world: World) -> Steps | None:
    text, value = said(dice, _text_file(dice, world))
    n, end = dice.randint(2, 40), dice.choice(("head", "tail"))
    return [
        _ask(dice, HEAD if end == "head" else TAIL, p=text, n=n),
        _call("read_text_file", path=value, **{end: n}),
        _done(dice),
    ]


def several(dice: Dice, world: World) -> Steps | None:
    paths = dice.sample(world.texts(), min(len(world.texts()), dice.choice((2, 2, 3))))
    if len(paths) < 2:
        return None
    spoken = dice.choice((" plus ", " as well as ", " and ")).join((", ".join(paths[:-1]), paths[-1]))
    return [_ask(dice, SEVERAL, ps=spoken), _call("read_multiple_files", paths=paths), _done(dice)]


def write(dice: Dice, world: World) -> Steps | None:
    (text, value), (spoken, body) = said(dice, joined(dice.choice(["", *world.folders]), _name(dice))), _body(dice)
    return [_ask(dice, WRITE, p=text, c=spoken), _call("write_file", path=value, content=body), _done(dice)]


def _change(dice: Dice, world: World) -> tuple[str, str, str, str, JsonObject] | None:
    path = _text_file(dice, world)
    lines = [line for line in world.files[path].splitlines() if world.files[path].count(line) == 1]
    if not lines:
        return None
    (text, value), old, new = said(dice, path), dice.choice(lines), dice.choice([*_NOTES, *_MATTERS])
    mark = dice.choice(('"', "'", ""))
    return text, value, f"{mark}{old}{mark}", f"{mark}{new}{mark}", {"path": value, "edits": [{"oldText": old, "newText": new}]}


def edit(dice: Dice, world: World) -> Steps | None:
    change = _change(dice, world)
    if change is None:
        return None
    text, _, old, new, arguments = change
    return [_ask(dice, EDIT, p=text, a=old, b=new), _call("edit_file", **arguments), _done(dice)]


def mkdir(dice: Dice, world: World) -> Steps | None:
    text, value = said(dice, joined(dice.choice(["", *world.folders]), dice.choice(WORDS.stems)))
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
    return [
        _ask(dice, RENAME, p=text, n=name),
        _call("move_file", source=value, destination=joined(parent(value), name)),
        _done(dice),
    ]


def find(dice: Dice, world: World) -> Steps | None:
    way, extension = dice.randrange(4), dice.choice(("rst", "conf", "dat", "lst", "org", "jpeg"))
    if way == 0:
        text, value = place(dice, dice.choice(world.folders or [""]))
        return [
            _ask(dice, FIND_EXT, e=f".{extension}", d=text),
            _call("search_files", path=value, pattern=f"**/*.{extension}"),
            _done(dice),
        ]
    if way == 1:
        return [
            _ask(dice, FIND_EXT_ALL, e=f".{extension}"),
            _call("search_files", path=".", pattern=f"**/*.{extension}"),
            _done(dice),
        ]
    if way == 2:
        name = base(dice.choice(sorted(world.files)))
        return [_ask(dice, FIND_NAME, n=name), _call("search_files", path=".", pattern=f"**/{name}"), _done(dice)]
    word = dice.choice(_MATTERS)
    return [_ask(dice, FIND_WORD, w=f"'{word}'"), _call("search_files", path=".", pattern=f"**/*{word}*"), _done(dice)]


def allowed(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, ALLOWED), _call("list_allowed_directories"), _done(dice)]


def chat(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, CHAT), _done(dice)]


def outside(dice: Dice, world: World) -> Steps | None:
    return [_ask(dice, OUTSIDE, p=_text_file(dice, world), s=dice.choice(_MATTERS), n=dice.randint(1, 12)), _done(dice)]


def find_then_fetch(dice: Dice, world: World) -> Steps | None:
    path = _text_file(dice, world, nested=True)
    if not path or not _once(world, path):
        return None
    search = _call("search_files", path=".", pattern=f"**/{base(path)}")
    return [_ask(dice, FIND_READ, n=base(path)), search, _call("read_text_file", path=f"/workspace/{path}"), _done(dice)]


def list_then_fetch(dice: Dice, world: World) -> Steps | None:
    path = _text_file(dice, world, nested=True)
    (text, value), (templates, tool) = (
        place(dice, parent(path)),
        dice.choice(((LIST_READ, "list_directory"), (NESTED, "directory_tree"))),
    )
    if not path:
        return None
    last = _call("read_text_file", path=joined(value, base(path)))
    return [_ask(dice, templates, d=text, n=base(path)), _call(tool, path=value), last, _done(dice)]


def duplicate(dice: Dice, world: World) -> Steps | None:
    path, target = _text_file(dice, world), _name(dice)
    write_again = _call("write_file", path=target, content=world.files[path])
    return [_ask(dice, COPY, p=path, q=target), _call("read_text_file", path=path), write_again, _done(dice)]


def folder_then_shift(dice: Dice, world: World) -> Steps | None:
    path, folder = dice.choice(sorted(world.files)), dice.choice(WORDS.stems)
    shift = _call("move_file", source=path, destination=f"{folder}/{base(path)}")
    return [_ask(dice, NEW_MOVE, d=folder, p=path), _call("create_directory", path=folder), shift, _done(dice)]


def fetch_then_edit(dice: Dice, world: World) -> Steps | None:
    change = _change(dice, world)
    if change is None:
        return None
    text, value, old, new, arguments = change
    return [
        _ask(dice, FETCH_EDIT, p=text, a=old, b=new),
        _call("read_text_file", path=value),
        _call("edit_file", **arguments),
        _done(dice),
    ]


def collect(dice: Dice, world: World) -> Steps | None:
    extension, target = base(_text_file(dice, world)).rpartition(".")[2], dice.choice(WORDS.folders)
    inside = sorted(path for path in world.files if path.endswith(f".{extension}"))
    if target in world.folders or not 1 <= len(inside) <= 2 or len({base(path) for path in inside}) < len(inside):
        return None
    moves = [_call("move_file", source=f"/workspace/{path}", destination=f"{target}/{base(path)}") for path in inside]
    search = _call("search_files", path=".", pattern=f"**/*.{extension}")
    return [
        _ask(dice, FIND_MOVE, e=f".{extension}", d=target),
        search,
        _call("create_directory", path=target),
        *moves,
        _done(dice),
    ]


def contrast_two(dice: Dice, world: World) -> Steps | None:
    first, second = dice.sample(sorted(world.files), 2)
    calls = [_call("get_file_info", path=path) for path in (first, second)]
    return [_ask(dice, TWO, p=first, q=second), *calls, _done(dice)]


def heaviest(dice: Dice, world: World) -> Steps | None:
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


def folder_then_write(dice: Dice, world: World) -> Steps | None:
    folder, name, (spoken, body) = dice.choice(WORDS.stems), _name(dice), _body(dice)
    file = _call("write_file", path=f"{folder}/{name}", content=body)
    return [_ask(dice, NEW_WRITE, d=folder, n=name, c=spoken), _call("create_directory", path=folder), file, _done(dice)]


def write_then_recite(dice: Dice, world: World) -> Steps | None:
    name, (spoken, body) = _name(dice), _body(dice)
    back = _call("read_text_file", path=name)
    return [_ask(dice, WRITE_BACK, p=name, c=spoken), _call("write_file", path=name, content=body), back, _done(dice)]


def missing(dice: Dice, world: World) -> Steps | None:
    """Wrong folder, wrong name, or nowhere at all."""
    path, way = _text_file(dice, world, nested=True), dice.randrange(3)
    if not path or not _once(world, path):
        return None
    if way == 0:
        wrong = path.rpartition(".")[0] + ".bak" if "." in base(path)[1:] else f"{path}.old"
        look, last = _call("list_directory", path=parent(path)), [_call("read_text_file", path=path)]
    else:
        wrong = base(path) if way == 1 else _name(dice)
        look = _call("search_files", path=".", pattern=f"**/{wrong}")
        last = [_call("read_text_file", path=f"/workspace/{path}")] if way == 1 else []
    if wrong in world.files or (way == 2 and any(base(other) == wrong for other in world.files)):
        return None
    return [
        _ask(dice, READ, p=wrong),
        Call(tool="read_text_file", arguments={"path": wrong}, fails=True),
        look,
        *last,
        _done(dice),
    ]


def refused(dice: Dice, world: World) -> Steps | None:
    path = dice.choice(("/opt/keys.pem", "/srv/data.db", "../../boot.cfg", "/mnt/usb/list.txt", "/etc/fstab"))
    denied = Call(tool="read_text_file", arguments={"path": path}, fails=True)
    return [_ask(dice, READ, p=path), denied, _call("list_allowed_directories"), _done(dice)]


def follow_ups(dice: Dice, world: World) -> Steps | None:
    """A first request, then a second one that only the first explains."""
    way, folder = dice.randrange(6), dice.choice(world.folders or [""])
    text_in = [path for path in world.texts() if parent(path) == folder]
    if way == 0 and folder and text_in:
        name = base(dice.choice(text_in))
        listed: Steps = [_ask(dice, LIST, d=folder), _call("list_directory", path=folder), _done(dice)]
        return [*listed, _ask(dice, THEN_FETCH_NAMED, n=name), _call("read_text_file", path=f"{folder}/{name}"), _done(dice)]
    path = _text_file(dice, world)
    opening: Steps = [_ask(dice, READ, p=path), _call("read_text_file", path=path), _done(dice)]
    if way == 1:
        return [*opening, _ask(dice, THEN_ABOUT), _done(dice)]
    if way == 2:
        return [*opening, _ask(dice, THEN_INFO), _call("get_file_info", path=path), _done(dice)]
    if way == 3:
        name = _name(dice, path.rpartition(".")[2] if "." in base(path) else "")
        rename_ = _call("move_file", source=path, destination=joined(parent(path), name))
        return [*opening, _ask(dice, THEN_RETITLE, n=name), rename_, _done(dice)]
    if way == 4 and folder and folder != parent(path):
        text, value = place(dice, folder)
        shift = _call("move_file", source=path, destination=joined(value, base(path)))
        return [*opening, _ask(dice, THEN_SHIFT, d=text), shift, _done(dice)]
    if way == 5 and folder:
        text, value = place(dice, folder)
        return [*opening, _ask(dice, THEN_LIST, d=text), _call("list_directory", path=value), _done(dice)]
    first: Steps = [_ask(dice, INFO, p=path), _call("get_file_info", path=path), _done(dice)]
    return [*first, _ask(dice, THEN_FETCH), _call("read_text_file", path=path), _done(dice)]


GRAMMAR = Grammar(
    name="filesystem_heldout",
    words=WORDS,
    systems=("You look after someone's documents.", "Reply in one sentence whenever possible.", "You are Otto, a clerk."),
    finish=finish,
    scenes=tuple(
        Scene(kind, weight, scene)
        for kind, weight, scene in (
            ("read", 4, read), ("read_part", 2, read_part), ("media", 3, media), ("read_several", 3, several), ("write", 4,
            write),
            ("edit", 4, edit), ("mkdir", 3, mkdir), ("list", 4, list_folder), ("sizes", 2, sizes), ("biggest", 2, biggest),
            ("tree", 3, tree), ("move", 3, move), ("rename", 3, rename), ("find", 5, find), ("info", 4, info), ("allowed", 2,
            allowed),
            ("chat", 6, chat), ("outside", 6, outside), ("find_then_read", 3, find_then_fetch), ("list_then_read", 2,
            list_then_fetch),
            ("copy", 2, duplicate), ("new_folder_then_move", 2, folder_then_shift), ("read_then_edit", 2, fetch_then_edit),
            ("find_then_move", 2, collect), ("compare_two", 2, contrast_two), ("sizes_then_read", 1.5, heaviest), ("roots",
            1, roots),
            ("new_folder_then_write", 2, folder_then_write), ("write_then_check", 2, write_then_recite), ("missing", 4, missing),
            ("refused", 1, refused), ("follow_ups", 6, follow_ups),
        )
    ),
)  # fmt: skip
