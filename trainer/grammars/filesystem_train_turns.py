"""Conversations for training: a second question after an answer, a slip put right, thanks, and what an old result answers.

Slots of the templates: {p} a path, {d} a folder, {n} a name or a number, {a} and {b} old and new text, {e} an extension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer.episodes import Ask, Call, Say
from trainer.grammars import filesystem_train_single as one
from trainer.grammars.filesystem_train_calls import answer, asking_about, editing, listing, making, moving, reading, searching
from trainer.grammars.filesystem_train_change import MKDIR_DO
from trainer.grammars.filesystem_train_goals import fresh
from trainer.grammars.filesystem_train_said import bare, place, quoted, spelled, target
from trainer.grammars.filesystem_train_talk import AFTER_CHAT
from trainer.grammars.filesystem_train_words import replacement
from trainer.grammars.mechanics import MEDIA, Dice, Steps, World, base, joined, parent

THEN_INFO = (
    "(how heavy is that one|when did anyone last touch it|its byte count|its weight|when was it touched)(|?)",
    "(how big is it|and its size|what is its size|when was it created|how old is it)(|?)",
    "(show|get|give me|check|print) its (info|metadata|details|properties|permissions|size|date)",
    "(and|now|also) (its size|its age|the date of it|the permissions of it|the metadata)(|?|, please)",
    "(who may|can i|am i allowed to) (change|read|write) it(|?)",
    "(is it|would it be) (large|heavy|recent|writable)(|?)",
)
THEN_READ = (
    "(pull it up|what's its wording|dump it for me|recite it|fetch it|bring it up|let me see it)(|?| please)",
    "(read|open|show|print|display|view) (it|that file|that one|this one)(| please| now| to me)",
    "(and|so) what (is in it|stands in it|is written there)(|?)",
    "(show|give|read) me (the contents|its text|its content|what is in it)",
    "(open|read) it (up|out|again)(|, please)",
    "i( want| need|'d like) to (see|read) (it|its text|that)",
    "(sum it up|summarize it|proofread it)(| for me| please)",
)
THEN_HEAD = (
    "(show|read) (me|) (just|only|) (its|the) (first|top) {n} lines(| again)",
    "and the first {n} lines(|?)",
)
THEN_TAIL = (
    "(show|read) (me|) (just|only|) (its|the) (last|final) {n} lines(| again)",
    "and the last {n} lines(|?)",
)
THEN_READ_NAMED = (
    "(pull up|fetch|grab|dump|recite|bring up) {n}(|, would you| please| now)",
    "let me (see|have|read) {n}",
    "(read|open|show me|show|print|display) {n}(| please| then| now| first)",
    "(what is in|what's in) {n}(|?)",
    "now {n}",
    "and {n}(|?)",
    "(ok|good|fine|right|thanks), (read|open|show) (me|) {n}",
    "{n} (please|then|first|looks interesting, open it|is the one i want to read)",
    "what does {n} (say|contain)(|?)",
)
THEN_RENAME = (
    "(retitle|rebrand) it (as|to) {n}",
    "let it (go by|be called|be known as) {n}",
    "(rename it|now rename it) (to|into) {n}",
    "(call|name|title) it {n} (instead|from today|please|)",
    "(its name should be|give it the name|change its name to) {n}",
    "(the name is|that name is) (bad|wrong|silly), (rename it|make it|call it) {n}",
)
THEN_MOVE = (
    "(shift|transfer|relocate|haul) it (over |)(to|into) {d}",
    "(move|put|send|carry|push|stick) it (to|into|in) {d}",
    "now (move|put|send) it (to|into) {d}",
    "it (belongs|should be|should go|has to go) (in|into) {d}",
    "(and|then|ok,) (move|put) (that|it|this file|the file) (to|into) {d}(| please)",
)
THEN_EDIT = (
    "(swap|exchange) {a} for {b}(| there| in it)",
    "(amend|correct) {a} (to|into) {b}",
    "(replace|change|turn|switch) {a} (with|to|into) {b}",
    "now (change|replace|update) {a} (to|with) {b} (in it|there|)",
    "(in it|there), {a} should (be|read|say) {b}",
    "{a} (is a mistake|is outdated), (make it|it should be|change it to) {b}",
    "(ok|good|fine|thanks), {b} instead of {a}(|, please)",
)
THEN_LIST = (
    "(now |)(browse|enumerate|peek inside) {d}",
    "and what (sits|lies|lives) in {d}(|?)",
    "(what else is in|list|now list|show me|what is in) {d}(|?)",
    "and (what is in|what about|what does one find in) {d}(|?)",
    "(now|next|then) {d}",
    "(the same|once more|and now the same) for {d}(|, please)",
)
THEN_SIZES = (
    "(and|now) (with sizes|with the sizes|the sizes|including sizes|how big are they)(|?|, please)",
    "(show|give me|tell me|add) (the sizes|how big each one is|their sizes)(|, please)",
    "how (big|large) are (they|those|these files)(|?)",
    "(how much space|how many bytes) do (they|those files) (take|need|use)(|?)",
)
THEN_BIGGEST = (
    "(which|which one|what) is (the biggest|the largest)(|?)",
    "(sort|order) (them|these|the list) by size",
    "(biggest|largest) first(|, please)",
)
THEN_TREE = (
    "(and|now) (with all subfolders|the whole tree|as a tree|on all levels|recursively|what is in the subfolders)(|?|, please)",
    "(show|print|give me) (the full tree|it as a tree|the subfolders too|everything below it)(| please)",
    "and (further down|in the subfolders|below that)(|?)",
)
THEN_FIND = (
    "(find|and where is|where is|locate|look for) {n}(|?| please)",
    "(now|next) (find|look for|search for) {n}",
)
THEN_FIND_EXT = ("(now|next|and) (find|look for|search for|show me) (all|the) {e} files", "(and|what about) {e} files(|?)")
THEN_ABOUT = (
    "(what's your impression|anything surprising there|rephrase that in plain words|cheers, that'll do|much appreciated)(|?|!)",
    "(which one is the (longest|shortest|first|last)|what do you think of it|is that (good|all|right|normal|much|ok))(|?)",
    "(explain|simplify|translate) (that|it) (for me|in one sentence|briefly|in simple words)",
    "(so|and) how many (are there|is that|are that in all|of them are there)(|?)",
    "(tell me|say) more about (that|it)",
    "(what|why) does that (mean|matter)(|?)",
    "(is there|was there|did you see) (anything|something) (odd|unusual|missing|about money|important) (in it|there|)(|?)",
    "(put|say|explain) (that|it) (in german|in french|in simpler words|as one sentence|more politely)",
    "(which|what) of (that|those|these) (matters most|is important|should i remember|comes first)(|?)",
    "(are you|is that) (sure|certain|final|complete|everything)(|?)",
    "(does|would) that (make sense|look fine) to you(|?)",
    "(how|what) would you (name|improve|shorten|comment on) (it|that)(|?)",
)
THEN_OUTSIDE = (
    "(now|and now|ok,|then) (delete|remove|run|zip|upload|email|encrypt|download) it",
    "(delete|remove|throw away|zip|compress|mail|email|upload|execute) (it|that|them)(| please| for good)",
    "(send|mail|forward) (it|that|this) to (Anna|my boss|the team|the client)",
    "(and|now) (commit|push|publish|print it on paper|upload it)",
)
NOT_THAT = (
    "no, i meant {p}",
    "(no|nope|not that one|wrong one), (i meant|i mean|it should be|i was thinking of|take|use) {p}",
    "(wrong file|not this|sorry|oops|ah no), (i meant|i mean|it should be|i was thinking of|take|use) {p}",
    "(sorry|oops), (wrong name|typo|my mistake|wrong file): {p}",
    "(not that|not that one|the other one): {p}",
    "{p}, (i meant|i mean|sorry|not that one|i should have said)",
    "(actually|wait|hm|well), (i meant|rather|make that|better) {p}",
    "that's (not it|the wrong one|not what i meant), (i meant|try|take) {p}",
    "same (for|with|question for|thing for) {p}",
    "(and|what about|and what about|now the same for|also) {p}(|?)",
    "(do|try) (the same|that|it) (with|for|again with) {p}",
)
ANOTHER_NAME = (
    "(no|actually|sorry|hm|wait), (call|name) it {n} (instead|rather|)",
    "(no|oops|sorry), i meant {n}",
    "(i changed my mind|on second thought|better|i made a typo): {n}",
    "(make|have) it be {n} (instead|rather|after all)",
)
AND_ALSO = (
    "(thanks|thank you|great|good|ok|perfect|nice|fine)(!|,|.) (now|and now|next|also|then) {t}",
    "(now|next|then|also|and|one more thing:|another thing:|after that,|besides,) {t}",
    "{t}",
    "{t}",
)

# What may follow a call: given the dice, the world, the path the call was about.
Follower = Callable[[Dice, World, str], Steps | None]


def _then_info(dice: Dice, world: World, path: str) -> Steps | None:
    return [Ask(text=dice.text(THEN_INFO)), asking_about(path)]


def _then_read(dice: Dice, world: World, path: str) -> Steps | None:
    return [Ask(text=dice.text(THEN_READ)), reading(path)] if world.files.get(bare(path)) != MEDIA else None


def _then_part(dice: Dice, world: World, path: str) -> Steps | None:
    if world.files.get(bare(path)) == MEDIA:
        return None
    end, lines = dice.choice(("head", "tail")), dice.randint(2, 60)
    ask = Ask(text=dice.text(THEN_HEAD if end == "head" else THEN_TAIL, n=lines))
    return [ask, Call(tool="read_text_file", arguments={"path": path, end: lines})]


def _then_edit(dice: Dice, world: World, path: str) -> Steps | None:
    text = world.files.get(bare(path), MEDIA)
    old, new = None if text == MEDIA else one.unique_piece(dice, text), replacement(dice)
    if old is None:
        return None
    return [Ask(text=dice.text(THEN_EDIT, a=quoted(dice, old, 2), b=quoted(dice, new, 2))), editing(path, old, new)]


def _then_rename(dice: Dice, world: World, path: str) -> Steps | None:
    name = one.new_name(dice, path.rpartition(".")[2] if "." in base(path)[1:] else "")
    goal = joined(parent(path), name)
    if bare(goal) in (*world.files, *world.folders):
        return None
    return [Ask(text=dice.text(THEN_RENAME, n=quoted(dice, name))), moving(path, goal)]


def _then_move(dice: Dice, world: World, path: str) -> Steps | None:
    folder = dice.choice(["", *world.folders, *world.folders])
    goal = joined(folder, base(path))
    if folder == bare(parent(path)) or goal in (*world.files, *world.folders):
        return None
    into, value = target(dice, folder)
    return [Ask(text=dice.text(THEN_MOVE, d=into)), moving(path, joined(value, base(path)))]


def _then_list(dice: Dice, world: World, path: str) -> Steps | None:
    text, value = place(dice, dice.choice(world.folders))
    return [Ask(text=dice.text(THEN_LIST, d=text)), listing(value)]


def _then_open(dice: Dice, world: World, path: str) -> Steps | None:
    inside = [name for name in world.inside(bare(path)) if world.files[name] != MEDIA]
    if not inside:
        return None
    name = base(dice.choice(inside))
    return [Ask(text=dice.text(THEN_READ_NAMED, n=quoted(dice, name))), reading(joined(path, name))]


def _then_sizes(dice: Dice, world: World, path: str) -> Steps | None:
    tool = "list_directory_with_sizes"
    if dice.one_in(2):
        return [Ask(text=dice.text(THEN_SIZES)), Call(tool=tool, arguments={"path": path})]
    return [Ask(text=dice.text(THEN_BIGGEST)), Call(tool=tool, arguments={"path": path, "sortBy": "size"})]


def _then_tree(dice: Dice, world: World, path: str) -> Steps | None:
    return [Ask(text=dice.text(THEN_TREE)), Call(tool="directory_tree", arguments={"path": path})]


def _then_make(dice: Dice, world: World, path: str) -> Steps | None:
    name = fresh(dice, world)
    return [Ask(text=dice.text(MKDIR_DO, d=quoted(dice, name))), making(name)]


def _then_find(dice: Dice, world: World, path: str) -> Steps | None:
    if dice.one_in(2):
        extension = one.some_extension(dice, world)
        return [Ask(text=dice.text(THEN_FIND_EXT, e=f".{extension}")), searching(f"**/*.{extension}")]
    name = base(dice.choice(sorted(world.files)))
    return [Ask(text=dice.text(THEN_FIND, n=name)), searching(f"**/{name}")] if one.is_searchable(name) else None


def _then_talk(dice: Dice, world: World, path: str) -> Steps | None:
    return [Ask(text=dice.text(dice.choice((AFTER_CHAT, THEN_ABOUT, THEN_ABOUT))))]


def _then_outside(dice: Dice, world: World, path: str) -> Steps | None:
    return [Ask(text=dice.text(THEN_OUTSIDE))]


_ANYTIME: tuple[Follower, ...] = (_then_talk, _then_talk, _then_outside, _then_list, _then_find, _then_make)
_ABOUT_A_FILE: tuple[Follower, ...] = (_then_info, _then_info, _then_rename, _then_move, _then_move)
_ABOUT_A_FOLDER: tuple[Follower, ...] = (_then_open, _then_open, _then_open, _then_sizes, _then_sizes, _then_tree)
_LISTING = frozenset(("list_directory", "list_directory_with_sizes", "directory_tree"))
_AFTER: dict[str, tuple[Follower, ...]] = {
    "read_text_file": (*_ABOUT_A_FILE, _then_edit, _then_edit, _then_part),
    "read_media_file": _ABOUT_A_FILE,
    "write_file": (*_ABOUT_A_FILE, _then_read),
    "edit_file": (*_ABOUT_A_FILE, _then_read, _then_read),
    "get_file_info": (_then_rename, _then_move, _then_read, _then_read, _then_part),
    "move_file": (_then_info, _then_read),
    "list_directory": _ABOUT_A_FOLDER,
    "list_directory_with_sizes": (_then_open, _then_open, _then_tree),
    "directory_tree": (_then_open, _then_sizes),
}


def follow_ups(dice: Dice, world: World) -> Steps | None:
    """One wish, then one to three more about the same thing or another."""
    openings = (
        one.list_folder, one.list_folder, one.read, one.find, one.write, one.sizes, one.info, one.allowed, one.tree, one.move,
        one.edit, one.media,
    )  # fmt: skip
    steps = one.single(dice.choice(openings))(dice, world)
    if not steps:
        return None
    for _ in range(dice.choice((1, 1, 2, 2, 3))):
        more = _one_more(dice, world, steps)
        if more is None:
            return None
        steps = [*steps, *more, answer(dice)]
    return steps


def _one_more(dice: Dice, world: World, steps: Sequence[Ask | Call | Say]) -> Steps | None:
    call = next(step for step in reversed(steps) if isinstance(step, Call))
    path = str(call.arguments.get("destination") or call.arguments.get("path", ""))
    about = _AFTER.get(call.tool, ()) if (bare(path) in ("", *world.folders)) == (call.tool in _LISTING) else ()
    anytime = _ANYTIME
    if any(isinstance(step, Call) and step.tool == "move_file" for step in steps):
        # The world is no longer as it was made: only what is about the moved file may follow, or what asks for nothing in it.
        about = tuple(follower for follower in about if follower in (_then_info, _then_read))
        anytime = (_then_talk, _then_outside, _then_make)
    if call.tool == "move_file" and world.files.get(bare(str(call.arguments["source"])), MEDIA) == MEDIA:
        about = (_then_info,)
    return dice.choice((*about, *about, *anytime))(dice, world, path)


def put_right(dice: Dice, world: World) -> Steps | None:
    """The user meant another one, or wants the same for another one: the same call, with that."""
    make = dice.choice((one.read, one.info, one.list_folder, one.rename, one.mkdir, one.sizes, one.tree))
    steps = one.single(make)(dice, world)
    if not steps:
        return None
    call = next(step for step in steps if isinstance(step, Call))
    if call.tool == "move_file":
        return _another_name(dice, world, steps, call)
    if call.tool == "create_directory":
        name = fresh(dice, world)
        return [*steps, Ask(text=dice.text(NOT_THAT, p=quoted(dice, name))), making(name), answer(dice)]
    first = bare(str(call.arguments["path"]))
    if call.tool in ("read_text_file", "get_file_info"):
        text, value = spelled(dice, dice.choice([path for path in world.texts() if path != first] or [first]))
    else:
        text, value = place(dice, dice.choice([folder for folder in world.folders if folder != first] or [""]))
    again = Call(tool=call.tool, arguments={**call.arguments, "path": value})
    return [*steps, Ask(text=dice.text(NOT_THAT, p=text)), again, answer(dice)]


def _another_name(dice: Dice, world: World, steps: Steps, call: Call) -> Steps | None:
    now = str(call.arguments["destination"])
    name = one.new_name(dice, now.rpartition(".")[2] if "." in base(now)[1:] else "")
    goal = joined(parent(now), name)
    if bare(goal) in (*world.files, *world.folders, bare(now)):
        return None
    return [*steps, Ask(text=dice.text(ANOTHER_NAME, n=quoted(dice, name))), moving(now, goal), answer(dice)]


def second_wish(dice: Dice, world: World) -> Steps | None:
    """One wish is done; then comes another that has nothing to do with it."""
    makers = (
        one.read, one.read_part, one.media, one.read_several, one.write, one.mkdir, one.list_folder, one.sizes, one.tree,
        one.find, one.info, one.allowed,
    )  # fmt: skip
    first, second = (make(dice, world) for make in dice.sample(makers, 2))
    if not first or not second:
        return None
    text = second.asked(dice)
    asked = text if "\n" in text else dice.text(AND_ALSO, t=text)
    return [Ask(text=first.asked(dice)), first.call, Say(text=first.answer), Ask(text=asked), second.call, answer(dice)]


def chat_then_call(dice: Dice, world: World) -> Steps | None:
    """Small talk first, or a wish that no tool grants."""
    makers = (
        one.list_folder, one.read, one.find, one.mkdir, one.tree, one.write, one.edit, one.info, one.sizes, one.allowed,
        one.media, one.move, one.read_several,
    )  # fmt: skip
    more = one.single(dice.choice(makers))(dice, world)
    return more and [*(dice.choice((one.chat, one.chat, one.outside))(dice, world) or []), *more]


def call_then_chat(dice: Dice, world: World) -> Steps | None:
    """A wish is granted; then nothing more is to be done."""
    makers = (one.list_folder, one.read, one.find, one.mkdir, one.tree, one.write, one.edit, one.info, one.sizes, one.rename)
    steps = one.single(dice.choice(makers))(dice, world)
    if not steps:
        return None
    if dice.one_in(3):
        return [*steps, *(dice.choice((one.chat, one.outside))(dice, world) or [])]
    return [*steps, Ask(text=dice.text(dice.choice((AFTER_CHAT, THEN_ABOUT)))), answer(dice)]
