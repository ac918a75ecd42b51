"""What users of the filesystem toolset want, for training. The held-out grammar shares none of these words and templates.

Conventions that the gold calls follow, because the tools leave them open: a path is written as the user wrote it, or as a
result showed it; the workspace itself is "."; text is read with read_text_file, the deprecated read_file only when it is
named; a search goes through all levels ("**/").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.shared.contracts.tools import JsonObject
from trainer.episodes import Ask, Call, Say
from trainer.grammars.filesystem_train_change import (
    BLOCK,
    EDIT_DO,
    EDIT_SAY,
    EDIT_TWO,
    EMPTY,
    MKDIR_DO,
    MKDIR_SAY,
    MOVE_DO,
    MOVE_SAY,
    MV,
    PREVIEW,
    REMOVE,
    RENAME_DO,
    RENAME_SAY,
    WRITE_DO,
    WRITE_SAY,
)
from trainer.grammars.filesystem_train_find import (
    FIND_ALL_DO,
    FIND_ALL_SAY,
    FIND_EXT_DO,
    FIND_EXT_SAY,
    FIND_NAME_DO,
    FIND_NAME_IN_DO,
    FIND_NAME_IN_SAY,
    FIND_NAME_SAY,
    FIND_WORD_DO,
    FIND_WORD_SAY,
    STARTS_DO,
    STARTS_SAY,
)
from trainer.grammars.filesystem_train_list import (
    ALLOWED_DO,
    ALLOWED_SAY,
    BIGGEST_DO,
    BIGGEST_SAY,
    LIST_DO,
    LIST_HERE,
    LIST_SAY,
    SIZES_DO,
    SIZES_SAY,
    TREE_DO,
    TREE_SAY,
    WITHOUT,
)
from trainer.grammars.filesystem_train_others_look import INFO_MEDIUM, OPEN_DO, OPEN_SAY
from trainer.grammars.filesystem_train_read import (
    HEAD_DO,
    HEAD_SAY,
    INFO_DO,
    INFO_SAY,
    INFO_SIZE_DO,
    INFO_SIZE_SAY,
    MEDIA_DO,
    MEDIA_SAY,
    READ_DO,
    READ_FILE,
    READ_SAY,
    SEVERAL_DO,
    SEVERAL_SAY,
    TAIL_DO,
    TAIL_SAY,
)
from trainer.grammars.filesystem_train_said import ordered, place, quoted, said, several, spelled, target
from trainer.grammars.filesystem_train_talk import CHAT, OUTSIDE
from trainer.grammars.filesystem_train_words import NOUNS, WORDS, content, invented, replacement
from trainer.grammars.mechanics import MEDIA, Dice, Steps, World, base, joined, parent, words

# Every verb of this grammar: the held-out grammar may use none of them, and these none of its own.
VERBS = frozenset(
    words(
        "abridge,acquaint,add,adjust,admire,allocate,alter,amend,analyse,analyze,appraise,arrange,assess,"
        "assign,assist,attach,audit,balance,baptize,bestow,blend,boil,book,browse,bump,burn,calculate,"
        "caption,capture,carry,cat,catalog,catalogue,change,characterise,characterize,chart,check,choose,"
        "christen,cite,claim,clarify,clip,clone,collate,comb,combine,commit,compare,compile,compose,"
        "compress,compute,condense,confirm,connect,construct,consult,contrast,convert,convey,copy,correct,cp,"
        "crack,craft,crawl,create,crop,decipher,decode,decrypt,depict,deposit,descend,describe,destroy,"
        "detect,determine,diagram,diff,dig,digest,discard,disclose,discover,display,dissect,download,drag,"
        "draw,drop,dub,dump,duplicate,earmark,echo,edit,email,encrypt,enlighten,ensure,enumerate,erase,"
        "erect,establish,estimate,evaluate,examine,exchange,execute,expand,explain,explore,export,expose,"
        "expound,extract,eyeball,fabricate,familiarize,fetch,figure,filter,find,fish,fix,flick,forage,forge,"
        "format,forward,gather,gauge,gaze,generate,give,glance,glob,grab,guess,gzip,hand,haul,hear,house,"
        "hunt,identify,index,initialise,initialize,inscribe,insert,inspect,institute,interpret,inventory,"
        "itemise,itemize,join,jot,judge,juxtapose,launch,leaf,list,listen,load,locate,log,look,ls,lug,"
        "mail,make,map,measure,mend,merge,migrate,mirror,mkdir,modify,monitor,morph,mount,move,mv,narrate,"
        "need,nest,note,obtain,open,organise,organize,outline,output,overwrite,pack,page,paraphrase,parse,"
        "pass,paste,patch,peek,peruse,pick,ping,pinpoint,pipe,place,play,plot,plough,plow,poke,populate,"
        "pour,prepare,present,preserve,preview,print,produce,project,proofread,publish,pull,push,put,quote,"
        "rank,rate,read,reassign,rebrand,recap,rechristen,recite,recognise,recognize,reconcile,record,"
        "rectify,redeploy,redirect,redo,redub,refresh,register,rehome,relay,relocate,remove,ren,rename,"
        "render,repair,rephrase,replace,replicate,report,reposition,reserve,reside,resize,restart,restore,"
        "retitle,retrieve,reveal,review,revise,reword,rework,rewrite,roam,round,rummage,run,save,scan,"
        "schedule,scour,scout,scribble,scroll,scrutinise,scrutinize,search,secure,see,seed,seek,send,"
        "serialize,set,settle,share,shift,ship,show,sift,simplify,simulate,sketch,skim,slide,slot,snoop,"
        "sort,spawn,speak,specify,spell,spill,spin,spot,stare,stash,stat,store,stow,stream,strike,strip,"
        "study,substitute,sum,summarise,summarize,surface,survey,swap,sweep,switch,sync,take,tally,tell,"
        "thumb,title,touch,trace,track,trade,transcribe,transfer,transform,translate,transpile,transplant,"
        "transport,traverse,trim,tuck,tune,tweak,type,uncover,undelete,unearth,unfold,unpack,unroll,unveil,"
        "unzip,update,upload,verify,vet,view,visit,visualise,visualize,wade,walk,want,weave,weigh,wipe,"
        "write,zap"
    )
)
# What a pattern takes for a sign of its own, so that no search for the name would find it.
_SIGNS = re.compile(r"[\[\]{}*?]|[+@!]\(")
# What one does not say of a sound, and what one does not say of a picture.
_PICTURES = re.compile(
    r"\b(picture|image|photo|photograph|graphic|drawing|snapshot|shot|pixels|artwork|painting|poster|sketch|screenshot|chart|"
    r"diagram|map|logo|icon|banner|wallpaper|thumbnail|avatar|cover|slide|bitmap|see|seen|shown|shows|depicts?|depicted|"
    r"pictured|portrays|portrayed|visible|colou?rs|faces|caption|admire|watch|eyes|lettering|view|drawn|painted|printed)\b"
)
_SOUNDS = re.compile(
    r"\b(sounds?|songs?|recording|audio|tune|track|clip|melody|voice|music|noise|speech|podcast|jingle|ringtone|interview|"
    r"play|played|hear|heard|hears|listen|spin|sung|spoken|said|transcribe|instruments|microphone)\b"
)
_SOUND_ENDINGS = (".mp3", ".wav", ".ogg", ".flac", ".m4a", ".aac", ".opus", ".aiff", ".aif", ".mid", ".amr", ".wma")


@dataclass(frozen=True)
class Wish:
    """One thing that a user wants: as an order where it has that form ("read a.txt"), as a sentence of its own, and the call."""

    order: str | None
    sentence: str
    call: Call
    answer: str

    def asked(self, dice: Dice) -> str:
        """As one says it when it is all that one wants."""
        return self.sentence if self.order is None or dice.one_in(2) else ordered(dice, self.order)


WishMaker = Callable[[Dice, World], Wish | None]


def single(make: WishMaker) -> Callable[[Dice, World], Steps | None]:
    """The scene in which a wish is all there is."""

    def scene(dice: Dice, world: World) -> Steps | None:
        wish = make(dice, world)
        return [Ask(text=wish.asked(dice)), wish.call, Say(text=wish.answer)] if wish else None

    return scene


def some_text(dice: Dice, world: World) -> str | None:
    """The path of a text file, if there is one."""
    texts = world.texts()
    return dice.choice(texts) if texts else None


def some_folder(dice: Dice, world: World) -> str:
    """A folder, now and then the workspace itself."""
    return dice.choice(["", *world.folders, *world.folders])


def new_stem(dice: Dice) -> str:
    """A name without extension that may be in no tree."""
    return dice.choice([dice.choice(WORDS.stems), dice.choice(WORDS.stems), dice.choice(WORDS.odd_stems), invented(dice)])


def new_name(dice: Dice, extension: str | None = None) -> str:
    """A file's name; `extension` may be "" for none."""
    everyday = words("txt,txt,md,md,json,csv,py,html,yaml,log")
    extension = dice.choice([*everyday, *WORDS.kinds]) if extension is None else extension
    return f"{new_stem(dice)}.{extension}" if extension else new_stem(dice)


def is_searchable(name: str) -> bool:
    """Whether a pattern that is the name finds the name."""
    return _SIGNS.search(name) is None


def unique_piece(dice: Dice, text: str) -> str | None:
    """A line, a word or a few words that occur once in `text`, so that an edit can mean them."""
    lines = [line.strip() for line in text.splitlines()]
    parts = [part for line in lines for part in line.split() if len(part) > 2]
    runs = [" ".join(line.split()[:n]) for line in lines for n in (2, 3) if len(line.split()) > n]
    kind = dice.choice((lines, lines, parts, parts, runs))
    once = [piece for piece in kind if len(piece) > 2 and text.count(piece) == 1]
    return dice.choice(once) if once else None


def _wish(
    dice: Dice, orders: Sequence[str], sentences: Sequence[str], tool: str, arguments: JsonObject, answer: str, **slots: object
) -> Wish:
    order = dice.text(orders, **slots) if orders else None
    sentence = dice.text(sentences, **slots)
    return Wish(order, sentence, Call(tool=tool, arguments=arguments), answer)


def read(dice: Dice, world: World) -> Wish | None:
    """One text file, whole."""
    path = some_text(dice, world)
    if path is None:
        return None
    text, value = said(dice, path)
    arguments: JsonObject = {"path": value}
    answer = f"This is what {base(path)} says."
    if "." in base(path)[1:] and dice.one_in(6):
        return _wish(dice, OPEN_DO, OPEN_SAY, "read_text_file", arguments, answer, x=text)
    return _wish(dice, READ_DO, READ_SAY, "read_text_file", arguments, answer, p=text)


def read_part(dice: Dice, world: World) -> Wish | None:
    """The first or last lines."""
    path = some_text(dice, world)
    if path is None:
        return None
    text, value = said(dice, path)
    lines, end = dice.choice((dice.randint(2, 20), dice.randint(2, 120))), dice.choice(("head", "tail"))
    orders, sentences = (HEAD_DO, HEAD_SAY) if end == "head" else (TAIL_DO, TAIL_SAY)
    return _wish(dice, orders, sentences, "read_text_file", {"path": value, end: lines}, "Here they are.", p=text, n=lines)


def read_deprecated(dice: Dice, world: World) -> Wish | None:
    """The deprecated tool, because the user insists."""
    path = some_text(dice, world)
    return _wish(dice, (), READ_FILE, "read_file", {"path": path}, "Here it is.", p=path) if path else None


def media(dice: Dice, world: World) -> Wish | None:
    """A picture or a sound."""
    path = next(path for path, text in world.files.items() if text == MEDIA)
    unfit = _PICTURES if path.lower().endswith(_SOUND_ENDINGS) else _SOUNDS
    wishes = (_media_wish(dice, path) for _ in range(30))
    return next((wish for wish in wishes if not unfit.search(f"{wish.order} {wish.sentence}")), None)


def _media_wish(dice: Dice, path: str) -> Wish:
    is_plain = dice.one_in(3)
    text, value = said(dice, path) if is_plain else spelled(dice, path)
    orders, sentences = (OPEN_DO, OPEN_SAY) if is_plain else (MEDIA_DO, MEDIA_SAY)
    arguments: JsonObject = {"path": value}
    return _wish(dice, orders, sentences, "read_media_file", arguments, f"This is {base(path)}.", p=text, x=text)


def read_several(dice: Dice, world: World) -> Wish | None:
    """Two to four files at once."""
    texts, count = world.texts(), dice.choice((2, 2, 2, 3, 3, 4))
    if len(texts) < count:
        return None
    text, values = several(dice, dice.sample(texts, count))
    arguments: JsonObject = {"paths": values}
    orders, sentences = (OPEN_DO, OPEN_SAY) if dice.one_in(5) else (SEVERAL_DO, SEVERAL_SAY)
    return _wish(dice, orders, sentences, "read_multiple_files", arguments, "That is what they say.", ps=text, x=text)


def write(dice: Dice, world: World) -> Wish | None:
    """A new file, or a whole new content, perhaps none."""
    path = joined(some_folder(dice, world), new_name(dice))
    if dice.one_in(5) and (existing := some_text(dice, world)):
        path = existing
    text, value = spelled(dice, path)
    if dice.one_in(12):
        return _wish(dice, (), EMPTY, "write_file", {"path": value, "content": ""}, "It is empty.", p=text)
    body = content(dice)
    arguments = {"path": value, "content": body}
    if "\n" in body and "`" not in body:
        return _wish(dice, (), BLOCK, "write_file", arguments, "It is written.", p=text, c=body)
    return _wish(dice, WRITE_DO, WRITE_SAY, "write_file", arguments, "It is written.", p=text, c=quoted(dice, body, 1.5))


def edit(dice: Dice, world: World) -> Wish | None:
    """One replacement or two; or a piece that goes; perhaps only to look at what it would do."""
    path = some_text(dice, world)
    old = path and unique_piece(dice, world.files[path])
    if not path or not old:
        return None
    (text, value), new = said(dice, path), replacement(dice)
    often = dice.choice((1, 100))
    spoken = {"a": quoted(dice, old, often), "b": quoted(dice, new, often), "p": text}
    arguments: JsonObject = {"path": value, "edits": [{"oldText": old, "newText": new}]}
    way = dice.randrange(14)
    if way < 2:
        return _wish(dice, (), PREVIEW, "edit_file", {**arguments, "dryRun": True}, "That is the difference.", **spoken)
    if way == 2:
        arguments = {"path": value, "edits": [{"oldText": old, "newText": ""}]}
        return _wish(dice, (), REMOVE, "edit_file", arguments, "It is gone.", **spoken)
    second = unique_piece(dice, world.files[path])
    if way == 3 and second and second not in old and old not in second and second not in new:
        other = replacement(dice)
        edits: JsonObject = {"path": value, "edits": [*arguments["edits"], {"oldText": second, "newText": other}]}
        return _wish(
            dice, (), EDIT_TWO, "edit_file", edits, "Both are changed.", **spoken, c=quoted(dice, second, often),
            e=quoted(dice, other, often),
        )  # fmt: skip
    return _wish(dice, EDIT_DO, EDIT_SAY, "edit_file", arguments, "Changed.", **spoken)


def mkdir(dice: Dice, world: World) -> Wish | None:
    """A new folder, perhaps nested."""
    name = dice.choice([new_stem(dice), dice.choice(WORDS.folders)])
    path = joined(dice.choice(["", "", *world.folders]), dice.choice([name, name, name, f"{name}/{new_stem(dice)}"]))
    if path.split("/")[0] in world.files or path in world.files:
        return None
    text, value = spelled(dice, path)
    return _wish(dice, MKDIR_DO, MKDIR_SAY, "create_directory", {"path": value}, "The folder is there.", d=text)


def list_folder(dice: Dice, world: World) -> Wish | None:
    """One level."""
    if dice.one_in(10):
        return _wish(dice, (), LIST_HERE, "list_directory", {"path": "."}, "That is what is here.")
    text, value = place(dice, some_folder(dice, world))
    is_plain = text.endswith("/") or "folder" in text or "director" in text
    orders, sentences = (OPEN_DO, OPEN_SAY) if is_plain and dice.one_in(3) else (LIST_DO, LIST_SAY)
    return _wish(dice, orders, sentences, "list_directory", {"path": value}, "That is what is in it.", d=text, x=text)


def sizes(dice: Dice, world: World) -> Wish | None:
    """One level with sizes."""
    text, value = place(dice, some_folder(dice, world))
    tool = "list_directory_with_sizes"
    if dice.one_in(2):
        arguments: JsonObject = {"path": value, "sortBy": "size"}
        return _wish(dice, BIGGEST_DO, BIGGEST_SAY, tool, arguments, "The largest comes first.", d=text)
    return _wish(dice, SIZES_DO, SIZES_SAY, tool, {"path": value}, "These are the sizes.", d=text)


def tree(dice: Dice, world: World) -> Wish | None:
    """All levels, perhaps without some."""
    text, value = place(dice, some_folder(dice, world))
    wish = _wish(dice, TREE_DO, TREE_SAY, "directory_tree", {"path": value}, "That is the whole tree.", d=text)
    if not dice.one_in(5):
        return wish
    left_out = dice.choice(["node_modules", ".git", dice.choice(WORDS.folders), "*.log", "*.tmp", "dist", invented(dice)])
    tail = dice.text(WITHOUT, x=left_out)
    whole = dice.choice((wish.sentence, wish.order or "")).rstrip("?")
    sentence = f"{whole}{tail}" if tail.startswith(",") else f"{whole} {tail}"
    arguments: JsonObject = {"path": value, "excludePatterns": [left_out]}
    return Wish(None, sentence, Call(tool="directory_tree", arguments=arguments), wish.answer)


def move(dice: Dice, world: World) -> Wish | None:
    """To another folder, or to a path given in full."""
    path = dice.choice(sorted(world.files))
    others = [folder for folder in ["", *world.folders, *world.folders] if folder != parent(path)]
    if not others:
        return None
    folder = dice.choice(others)
    if dice.one_in(4):
        goal = joined(folder, dice.choice([base(path), new_name(dice)]))
        if goal in world.files or goal in world.folders:
            return None
        arguments: JsonObject = {"source": path, "destination": goal}
        return _wish(dice, (), MV, "move_file", arguments, "Moved.", p=quoted(dice, path), q=quoted(dice, goal))
    (text, value), (into, goal) = said(dice, path), target(dice, folder)
    if joined(folder, base(path)) in world.files or joined(folder, base(path)) in world.folders:
        return None
    arguments = {"source": value, "destination": joined(goal, base(path))}
    return _wish(dice, MOVE_DO, MOVE_SAY, "move_file", arguments, "Moved.", p=text, q=into)


def rename(dice: Dice, world: World) -> Wish | None:
    """Another name in the same folder, for a file or now and then for a folder."""
    nested = [path for path in sorted(world.files) if parent(path)]
    path = dice.choice([*sorted(world.files), *nested, *nested, *world.folders])
    (text, value), name = (said if path in world.files else spelled)(dice, path), new_stem(dice)
    if path in world.files:
        name = new_name(dice, path.rpartition(".")[2] if "." in base(path)[1:] else "")
    if joined(parent(path), name) in (*world.files, *world.folders):
        return None
    arguments: JsonObject = {"source": value, "destination": joined(parent(value), name)}
    return _wish(dice, RENAME_DO, RENAME_SAY, "move_file", arguments, "Renamed.", p=text, n=quoted(dice, name))


def some_extension(dice: Dice, world: World) -> str:
    """One of those in the tree, now and then another."""
    there = [base(path).rpartition(".")[2] for path in world.files if "." in base(path)[1:]]
    return dice.choice([*there, dice.choice(sorted(WORDS.kinds)) or "txt"])


def find(dice: Dice, world: World) -> Wish | None:
    """By extension, by name, by a part of the name."""
    return dice.choice((find_extension, find_extension, find_name, find_name, find_part))(dice, world)


def find_extension(dice: Dice, world: World) -> Wish | None:
    """All files of one kind, in a folder or everywhere."""
    extension, (folder, value) = some_extension(dice, world), place(dice, some_folder(dice, world))
    spoken = dice.choice((f".{extension}", f".{extension}", extension, f"*.{extension}"))
    slots = {"e": spoken, "e0": extension}
    if dice.one_in(2):
        arguments: JsonObject = {"path": ".", "pattern": f"**/*.{extension}"}
        return _wish(dice, FIND_ALL_DO, FIND_ALL_SAY, "search_files", arguments, "These.", **slots)
    arguments = {"path": value, "pattern": f"**/*.{extension}"}
    return _wish(dice, FIND_EXT_DO, FIND_EXT_SAY, "search_files", arguments, "These.", d=folder, **slots)


def find_name(dice: Dice, world: World) -> Wish | None:
    """One thing whose name is known, in a folder or everywhere; it may not be there."""
    there = [base(path) for path in (*sorted(world.files), *world.folders) if is_searchable(base(path))]
    name = dice.choice([*there, f"{invented(dice)}.txt"])
    if not dice.one_in(3):
        arguments: JsonObject = {"path": ".", "pattern": f"**/{name}"}
        return _wish(dice, FIND_NAME_DO, FIND_NAME_SAY, "search_files", arguments, "There.", n=quoted(dice, name))
    folder, value = place(dice, some_folder(dice, world))
    arguments = {"path": value, "pattern": f"**/{name}"}
    slots = {"n": quoted(dice, name), "d": folder}
    return _wish(dice, FIND_NAME_IN_DO, FIND_NAME_IN_SAY, "search_files", arguments, "There.", **slots)


def find_part(dice: Dice, world: World) -> Wish | None:
    """What has a word in its name, or begins with it."""
    starts = [base(path)[: dice.randint(3, 5)].strip() for path in sorted(world.files) if is_searchable(base(path))]
    word = dice.choice([dice.choice(NOUNS), invented(dice), dice.choice([*starts, "plan"])])
    slots = {"w": quoted(dice, word), "w0": word}
    if dice.one_in(4):
        arguments: JsonObject = {"path": ".", "pattern": f"**/{word}*"}
        return _wish(dice, STARTS_DO, STARTS_SAY, "search_files", arguments, "These.", **slots)
    arguments = {"path": ".", "pattern": f"**/*{word}*"}
    return _wish(dice, FIND_WORD_DO, FIND_WORD_SAY, "search_files", arguments, "These.", **slots)


def info(dice: Dice, world: World) -> Wish | None:
    """Metadata of one file or folder."""
    media = [path for path, text in world.files.items() if text == MEDIA]
    path = dice.choice([*sorted(world.files), *sorted(world.files), *world.folders, *media, *media])
    answer = "That is what is known of it."
    if path in media and dice.one_in(2):
        text, value = spelled(dice, path)
        kind = dice.choice(words("recording,song,sound" if path.lower().endswith(_SOUND_ENDINGS) else "image,picture,photo"))
        return _wish(dice, (), INFO_MEDIUM, "get_file_info", {"path": value}, answer, p=text, k=kind)
    if path in world.files and dice.one_in(3):
        text, value = said(dice, path)
        return _wish(dice, INFO_SIZE_DO, INFO_SIZE_SAY, "get_file_info", {"path": value}, answer, p=text)
    text, value = said(dice, path) if path in world.files else place(dice, path)
    return _wish(dice, INFO_DO, INFO_SAY, "get_file_info", {"path": value}, answer, p=text)


def allowed(dice: Dice, world: World) -> Wish | None:
    """The tool without parameters."""
    return _wish(dice, ALLOWED_DO, ALLOWED_SAY, "list_allowed_directories", {}, "That is where I can work.")


def chat(dice: Dice, world: World) -> Steps | None:
    """Nothing to call."""
    word = dice.choice([dice.choice(NOUNS), invented(dice)])
    asked = dice.text(CHAT, n=quoted(dice, new_name(dice)), e=dice.choice(sorted(WORDS.kinds)) or "txt", w=word)
    return [Ask(text=asked), Say(text="Gladly.")]


def outside(dice: Dice, world: World) -> Steps | None:
    """Wanted, but no tool can do it."""
    text, _ = said(dice, dice.choice(sorted(world.files)))
    folder, _ = place(dice, some_folder(dice, world))
    noun = dice.choice([dice.choice(NOUNS), invented(dice)])
    asked = dice.text(OUTSIDE, p=text, d=folder, s=noun, n=dice.randint(1, 12))
    return [Ask(text=asked), Say(text="I have no tool for that.")]
