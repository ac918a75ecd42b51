"""How users of the filesystem toolset speak, for training. The held-out grammar shares none of these words and templates.

Conventions that the gold calls follow, because the tools leave them open: a path is written as the user wrote it, or as a
result showed it; the workspace itself is "."; text is read with read_text_file, the deprecated read_file only when it is
named; a search goes through all levels ("**/").
"""

from __future__ import annotations

import json

from services.shared.contracts.tools import JsonObject
from trainer.episodes import Ask, Call, Say
from trainer.grammars.mechanics import MEDIA, Dice, Steps, Vocabulary, World, base, joined, parent, with_typo, words

_NOUNS = words(
    "apple,river,meeting,invoice,budget,client,draft,garden,travel,recipe,lesson,sprint,release,salary,contact,"
    "customer,order,product,holiday,school,grocery,project,design,server,training,weekly,monthly,annual,old,new,"
    "final,team,roadmap,summary,inventory,survey,feedback,speech,thesis,chapter,letter,contract,guide,manual,"
    "login,config,setup,deploy,backup,cleanup,index,schema,users,events,metrics,changes,ideas,tasks,agenda,goals,"
    "wishlist,bookmarks,passwords,addresses,shopping,diary,rent"
)
_THINGS = words("milk,tea,bread,call Anna,fix the login,pay rent,book flights,water plants,send invoice,test build,review code")
_KEYS = words("port,host,debug,timeout,theme,language,retries,color,mode,level,region,version")
_VALUES = words("8080,9000,true,false,30,dark,light,en,de,3,blue,fast,info,eu,localhost,1.2.0")


def _prose(dice: Dice) -> str:
    lines = dice.sample(_THINGS, dice.randint(1, 4))
    return "\n".join(f"- {line}" if dice.one_in(2) else line for line in lines) + "\n"


def _table(dice: Dice) -> str:
    rows = [f"{dice.choice(_NOUNS)},{dice.randint(1, 99)}" for _ in range(dice.randint(1, 3))]
    return "\n".join(["name,count", *rows]) + "\n"


def _settings(dice: Dice) -> str:
    return "".join(f"{key} = {dice.choice(_VALUES)}\n" for key in dice.sample(_KEYS, dice.randint(2, 3)))


def _object(dice: Dice) -> str:
    return json.dumps({key: dice.choice(_VALUES) for key in dice.sample(_KEYS, 2)}) + "\n"


def _code(dice: Dice) -> str:
    return dice.choice((f"def {dice.choice(_NOUNS)}():\n    return {dice.randint(0, 9)}\n", f"print('{dice.choice(_THINGS)}')\n"))


WORDS = Vocabulary(
    folders=words(
        "docs,src,reports,images,archive,scripts,logs,drafts,photos,music,work,private,tests,config,assets,My Files,"
        "team-a,2023,build,invoices,src-old,résumés,letters,exports,game,lib"
    ),
    stems=[a if i % 3 else f"{a}{('_', '-', ' ')[i // 3 % 3]}{_NOUNS[-i]}" for i, a in enumerate(_NOUNS)],
    kinds={
        "txt": _prose,
        "md": _prose,
        "csv": _table,
        "json": _object,
        "py": _code,
        "ini": _settings,
        "log": _prose,
        "yaml": _settings,
        "toml": _settings,
        "html": _prose,
        "": _prose,
        "js": _code,
        "xml": _prose,
        "tex": _prose,
        "tsv": _table,
        "sh": _code,
    },
    media=words("png,jpg,mp3,gif,wav,webp"),
    odd_stems=words("Makefile,README,v1.2 (copy),café menu,año-2021,données,.env,notes&tasks,größe,report#3,Übersicht,a.b.c"),
)

# Every verb of this grammar: the held-out grammar may use none of them, and these none of its own.
VERBS = frozenset(
    words(
        "show,read,open,print,cat,display,view,check,list,ls,create,make,add,mkdir,move,mv,rename,put,search,find,"
        "locate,look,edit,replace,change,update,write,save,store,compare,summarize,tell,give,see,need,want,copy,"
        "describe,stat,inspect,set,fix"
    )
)

READ = (
    "(show|show me|read|open|print|cat|display|view) {p}",
    "(can|could) you (read|open|show me) {p}(|?| please)",
    "(what's|what is|whats) (in|inside|written in) {p}(|?)",
    "(give|show) me the (contents|content|text) of {p}",
    "i (need|want) to (see|read) {p}",
    "(read|open) (the file|file) {p}(| and tell me what it says| for me)",
    "please (read|display|print) {p}",
    "(contents|content|text) of {p}(|?)",
    "(take a|have a) look at {p}",
    "{p} (contents|please show)",
    "what does {p} (contain|say)(|?)",
    "(check|look into) {p} and (summarize|describe) it(| for me)",
)
HEAD = (
    "(show|print|read|give me) the first {n} lines of {p}",
    "first {n} lines of {p}(| please|?)",
    "(read|show me) only the (top|first) {n} lines (of|from) {p}",
    "head -n {n} {p}",
    "(open|view) {p} but just the first {n} lines",
    "what are the first {n} lines (in|of) {p}?",
)
TAIL = (
    "(show|print|read|give me) the last {n} lines of {p}",
    "last {n} lines of {p}(| please|?)",
    "tail -n {n} {p}",
    "(read|show me) only the (bottom|last) {n} lines (of|from) {p}",
    "how does {p} end? (show|print) the last {n} lines",
)
READ_FILE = ("(use|call|run) read_file (on|with|for) {p}", "read_file {p}", "with (the|) read_file (tool|), open {p}")
MEDIA_READ = (
    "(show|open|display|view|load) (the (picture|image|photo|sound|clip)|) {p}",
    "(can|could) you (show me|open|look at) {p}(|?)",
    "what (is|can you see) in the (picture|image|photo) {p}?",
    "describe (the|this) (image|picture|photo) {p}",
    "(play|open|read) {p}",
    "i (want|need) to see {p}",
    "(look at|read in) the (image|media|audio) file {p}(| please)",
    "what does {p} (look|sound) like?",
)
SEVERAL = (
    "(read|open|show|show me|print|display) {ps}",
    "(compare|diff) {ps}",
    "(what's|what is) in {ps}?",
    "(give|show) me the contents of {ps}",
    "(can|could) you read {ps} (at once|together|in one go|)(|?)",
    "i need to see (both|all of these|these files): {ps}",
    "summarize {ps}( for me|)",
    "cat {ps}",
    "(read|open) these: {ps}",
    "(contents|text) of {ps}(| please)",
)
WRITE = (
    "(create|make|write|save|add) (a file|a new file|file|) {p} (with|containing) (the text|the content|) {c}",
    "(write|save|put|store) {c} (to|into|in) {p}",
    "(create|make) {p} with (content|text|) {c}",
    "new file {p}: {c}",
    "(please|can you) (write|save) {c} (to|as|into) {p}",
    "(make|create) (a new|a) (text file|file) (called|named) {p} that (says|contains) {c}",
    "i (want|need) a file {p} (saying|containing|with) {c}",
    "overwrite {p} with {c}",
    "set the contents of {p} to {c}",
)
EDIT = (
    "(replace|change) {a} (with|to) {b} in {p}",
    "in {p}(|,) (replace|change|update) {a} (to|with|by) {b}",
    "(edit|update|fix) {p}: {a} should (be|say|read) {b}",
    "(edit|update) {p} (and|to) (change|replace) {a} (to|with) {b}",
    "(please|can you) (change|replace) {a} (to|with) {b} in (the file|) {p}",
    "s/{a}/{b}/ in {p}",
    "{p} (says|has) {a}(|,) (change|set) it to {b}",
    "fix the line {a} in {p}, it should be {b}",
)
PREVIEW = (
    "(preview|show me|dry run|dry-run) (changing|replacing) {a} (to|with) {b} in {p}(| without saving)",
    "what would it look like to (change|replace) {a} (to|with) {b} in {p}? (don't save|only preview)",
)
MKDIR = (
    "(create|make|add) (a|a new|the) (folder|directory) (called|named|) {d}",
    "mkdir (-p|) {d}",
    "(please|can you) (create|make) (the folder|the directory|a folder|a directory) {d}",
    "i need a (new|) (folder|directory) {d}",
    "new (folder|directory)(:|) {d}",
    "(set up|make) (a|an empty) (directory|folder) {d}(| for me)",
)
LIST = (
    "(list|show|show me) (the files|all files|everything|files) in {d}",
    "ls {d}",
    "(what's|what is|whats) in {d}(|?)",
    "(which|what) files are (in|inside|there in) {d}(|?)",
    "list {d}",
    "(can|could) you list {d}(|?)",
    "(what|which) (folders|files and folders|subfolders) (are in|does|exist in) {d}( have|)(|?)",
    "i want to see (what is in|the contents of) {d}",
    "(look|check) (inside|in|into) {d} and tell me what is there",
    "contents of {d}(| please)",
    "do we have (any files|anything) in {d}?",
)
SIZES = (
    "(list|show|show me) (the files|everything|files) in {d} with (their|the|) sizes",
    "how (big|large) are the files in {d}(|?)",
    "ls -lh {d}",
    "(file sizes|sizes) (in|of|for) {d}(| please|?)",
    "(list|show) {d} (with|including|and) (sizes|file sizes|the size of each file)",
    "(what|which) files are in {d} and how (big|large) are they?",
    "how much space do the files in {d} take(| up)?",
    "what is the total size of {d}(|?)",
)
BIGGEST = (
    "(what is|what's|which is) the (biggest|largest) file in {d}(|?)",
    "(list|show) {d} (sorted|ordered) by size",
    "(biggest|largest) files in {d}(| first|?)",
    "(show|list) the files in {d}(|,) (biggest|largest) first",
    "which file in {d} (is|takes) (the (largest|biggest)|the most space)?",
)
TREE = (
    "(show|show me|print|display|give me) (the|a) (tree|directory tree|full tree|folder structure|file tree) (of|for) {d}",
    "tree {d}",
    "(show|list) {d} recursively(| please)",
    "(what is|what's) the (folder|directory) structure of {d}(|?)",
    "(list|show) (everything|all files) (under|below) {d}(|,) including subfolders",
    "how is {d} (organized|structured)(|?)",
    "(show|print) {d} as a tree",
    "i need to see the (whole|complete) hierarchy of {d}",
)
WITHOUT = ("(| but) without {x}", "(|,) (leave out|skip|ignore) {x}", "(|,) excluding {x}")
MOVE = (
    "(move|mv) {p} (to|into) {q}",
    "(please|can you) move {p} (to|into) {q}",
    "put {p} (into|in) {q}",
    "i want {p} (moved to|in) {q}",
)
MV = ("mv {p} {q}", "move {p} to {q}", "(please|can you) move {p} to {q}", "change the path of {p} to {q}")
RENAME = (
    "rename {p} (to|as|into) {n}",
    "(please|can you) rename {p} to {n}(|?)",
    "change the name of {p} to {n}",
    "give {p} the (new|) name {n}",
    "{p} should be (called|named) {n}(|, rename it)",
    "mv {p} {n}",
)
FIND_EXT = (
    "(find|search for|locate|list|show me) (all|every|the|) {e} files( in {d}| under {d}| below {d})",
    "(which|what) {e} files (are there|exist|do we have) (in|under) {d}(|?)",
    "(search|look) (in|through) {d} for {e} files",
    "(where are|find) (the|all|my) {e} files (in|under) {d}(|?)",
)
FIND_EXT_ALL = (
    "(find|search for|locate|show me) (all|every|all the|) {e} files",
    "where are (the|all|my) {e} files(|?)",
    "are there any {e} files(| somewhere| anywhere)(|?)",
    "(which|what) {e} files (are there|exist|do we have)(|?)",
    "(look|search) (everywhere|) for {e} files",
)
FIND_NAME = (
    "(find|locate|search for) (the file|a file called|) {n}",
    "where is {n}(|?)",
    "(which folder|where) is (the file|) {n} (in|)(|?)",
    "(can|could) you (find|locate) {n}( for me|)(|?)",
    "i need to find {n}, (where is it|don't know where it is)(|?)",
    "(search|look) for {n}(| everywhere| in all folders)",
)
FIND_WORD = (
    "(find|search for|list|show) (all|) files with {w} in (the|their) name",
    "(which|what) files have {w} in (the|their) name(|?)",
    "(find|search for|locate) (files|everything) (named like|matching|about|called something with) {w}",
    "(is|are) there (a file|any file|files) with {w} in the name(|?)",
)
INFO = (
    "(how (big|large) is|what is the size of|what's the size of) {p}(|?)",
    "when was {p} (last|) (modified|changed|created|edited)(|?)",
    "(show|show me|get|give me) (the|) (info|metadata|details|file info|properties) (of|for|about|on) {p}",
    "(what are|check) the permissions (of|on|for) {p}(|?)",
    "stat {p}",
    "is {p} a (file|folder) or a (directory|file)(|?)",
    "(size|age|permissions|metadata) of {p}(|?)",
    "how old is {p}(|?)",
    "does {p} exist(|?)",
    "who can (read|write) {p}? (check|show) its permissions",
    "how many bytes (is|does) {p}( have|)(|?)",
)
ALLOWED = (
    "(which|what) (directories|folders) (can|may) you (access|read|use|see)(|?)",
    "(show|list|tell me) (the|all|) (allowed|accessible) (directories|folders)",
    "where (are|am) (you|I) allowed to (read|write|save|look)(|?)",
    "what (parts of the disk|paths|locations) (can|may) you (access|use|open)(|?)",
    "(do|which folders do) you have access to(| anything)(|?)",
    "what is your (root|allowed) (directory|folder)(|?)",
    "which (folder|directory) do you work in(|?)",
)
CHAT = (
    "(hi|hello|hey|good morning|good evening)(|!| there|, how are you?)",
    "(thanks|thank you|thx)(|!| a lot| so much|, that's all)",
    "(who are you|what can you do|how can you help me)(|?)",
    "what is the capital of (France|Spain|Peru|Japan)(|?)",
    "(write|make up|tell me) a (short|) (poem|joke|story|limerick) about (cats|the sea|files|autumn|folders)",
    "(explain|what is) (recursion|a csv file|json|a file system|a symlink|yaml|unicode)(|?)",
    "what is (2|7|12|30) (plus|times|minus) (3|5|9|14)(|?)",
    "how do i (rename|copy|move|list) (a file|files|a folder) in (bash|python|windows|linux)(|?)",
    "what's the difference between (json and yaml|csv and tsv|a file and a folder|png and jpg)(|?)",
    "(translate|say) (hello|good night|thank you) (to|in) (french|german|spanish)",
    "(never mind|forget it|ok|okay|great|perfect|got it|cool)(|!|, thanks)",
    "(suggest|give me) (a good name|three names|some ideas) for (a cat|my blog|a folder of photos|a notes file)",
    "who (wrote|painted|invented) (Hamlet|Faust|the Mona Lisa|the telephone)(|?)",
    "(is|are) (python|java|rust) (hard to learn|fast|typed)(|?)",
    "what makes a good (readme|commit message|report|file name)(|?)",
    "(why is|explain why) (the sky blue|the sea salty|water wet)(|?)",
    "(i'm|i am) (tired|bored|happy) today",
)
OUTSIDE = (
    "(what's|what is|how is) the weather (in|like in) (Paris|Berlin|Oslo|Rome)(| today| tomorrow)(|?)",
    "send (an email|a mail|a message) to (Anna|Bob|my boss|the team)(| about {s})",
    "(delete|remove|rm) {p}",
    "(please|can you) delete (the file|) {p}(|?)",
    "(run|execute|start) {p}",
    "(zip|compress|unzip|extract) {p}",
    "(download|upload) {p}( to the cloud| from the web|)",
    "(book|reserve) a (flight|table|room) (in|to) (Madrid|London|Vienna)",
    "(add|create) (a meeting|an event|an appointment) (on|for) (monday|friday|tomorrow)( at {n}|)",
    "what time is it(| now| in Tokyo)(|?)",
    "(search|look up) (the web|online|the internet) for {s}",
    "(restart|stop|install) (the server|docker|nginx|numpy|my computer)",
    "(play|stop) (music|some jazz|the radio)",
    "set an alarm for {n} o'clock",
    "what is the (stock price|share price) of (apple|tesla)(|?)",
    "(chmod|chown) {p}",
    "encrypt {p}(| with a password)",
    "(commit|push) (my changes|everything)( to git|)",
)
AFTER_CHAT = (
    "(thanks|thank you|great|perfect|ok|nice)(|!|, that's all|, that helps)",
    "what did (that|you) (mean|do)(|?)",
    "good job",
)


def said(dice: Dice, path: str) -> tuple[str, str]:
    """A path as a user writes it, and as a call has to give it."""
    style = dice.randrange(12)
    if parent(path) and style < 3:
        folder, name = parent(path), base(path)
        inside = dice.text(
            ("(in|from|inside) (the|) {f} (folder|directory)", "(in|from) {f}", "(in|of) the {f} (folder|dir)"), f=folder
        )
        return f"{_quoted(dice, name)} {inside}", path
    value = {3: f"/workspace/{path}", 4: f"/workspace/{path}", 5: f"./{path}"}.get(style, path)
    return _quoted(dice, value), value


def _quoted(dice: Dice, text: str) -> str:
    if not dice.one_in(2 if " " in text else 5):
        return text
    mark = dice.choice("\"'`")
    return f"{mark}{text}{mark}" if mark not in text else text


def place(dice: Dice, folder: str) -> tuple[str, str]:
    """A folder as a user calls it, and as a call has to give it; "" is the workspace."""
    if not folder:
        return dice.choice((
            ("here", "."), ("the workspace", "."), ("this directory", "."), ("the current directory", "."), ("my workspace", "."),
            ("/workspace", "/workspace"), (".", "."), ("the current folder", "."), ("this folder", "."), ("the root folder", "."),
        ))  # fmt: skip
    style = dice.randrange(8)
    if style < 3:
        return dice.choice(
            (f"the {folder} folder", f"the folder {folder}", f"the {folder} directory", f"directory {folder}")
        ), folder
    value = {3: f"/workspace/{folder}", 4: f"{folder}/", 5: f"./{folder}"}.get(style, folder)
    return _quoted(dice, value), value


def several(dice: Dice, paths: list[str]) -> tuple[str, list[str]]:
    """A list of paths in a sentence, and as values."""
    pairs = [(_quoted(dice, value), value) for path in paths for value in [dice.choice((path, path, f"/workspace/{path}"))]]
    texts = [text for text, _ in pairs]
    if dice.one_in(4):
        return ", ".join(texts), [value for _, value in pairs]
    return ", ".join(texts[:-1]) + dice.choice((" and ", " and ", ", and ", " & ")) + texts[-1], [value for _, value in pairs]


def finish(dice: Dice, text: str, kept: object) -> str:
    """Manners, capitals and slips."""
    if dice.one_in(7):
        text = dice.choice(("please ", "hey, ", "hi, ", "ok now ", "quick: ", "hey can you ", "now ", "next: ", "um, ")) + text
    if dice.one_in(8):
        text += dice.choice((" please", " pls", ", thanks", " thx", "."))
    if dice.one_in(8) and isinstance(kept, (list, tuple)):
        text = with_typo(dice, text, kept)
    starts_with_path = isinstance(kept, (list, tuple)) and any(text.split(" ")[0] in str(part) for part in kept)
    return text if starts_with_path or dice.one_in(1.5) else text[:1].upper() + text[1:]


def content(dice: Dice) -> tuple[str, str]:
    """What is to be written: as said, and its value."""
    value = dice.choice((
        lambda: dice.choice(_THINGS),
        lambda: f"{dice.choice(_THINGS)} and {dice.choice(_THINGS)}",
        lambda: f"{dice.choice(_KEYS)}={dice.choice(_VALUES)}",
        lambda: json.dumps({dice.choice(_KEYS): dice.choice(_VALUES)}),
        lambda: f"# {dice.choice(_NOUNS)} {dice.choice(_NOUNS)}",
        lambda: f"{dice.choice(_NOUNS)}\n{dice.choice(_NOUNS)}",
        lambda: f"print({dice.randint(1, 99)})",
        lambda: f"Hello {dice.choice(_NOUNS)}!",
    ))()  # fmt: skip
    if "'" not in value and dice.one_in(3):
        return f"'{value}'", value
    return (f'"{value}"', value) if '"' not in value and dice.one_in(2) else (value, value)


def _line(dice: Dice, text: str) -> str | None:
    lines = [line for line in text.splitlines() if len(line) > 2 and text.count(line) == 1]
    return dice.choice(lines) if lines else None


def _some_file(dice: Dice, world: World) -> str | None:
    texts = world.texts()
    return dice.choice(texts) if texts else None


def _some_folder(dice: Dice, world: World) -> str:
    return dice.choice(["", *world.folders, *world.folders])


def _new_name(dice: Dice, extension: str | None = None) -> str:
    stem = dice.choice(WORDS.stems)
    extension = dice.choice(["txt", "md", "json", "csv", "py", "html"]) if extension is None else extension
    return f"{stem}.{extension}" if extension else stem


def _one(templates: tuple[str, ...], tool: str, arguments: JsonObject, answer: str, dice: Dice, **slots: object) -> Steps:
    return [Ask(text=dice.text(templates, **slots)), Call(tool=tool, arguments=arguments), Say(text=answer)]


def read(dice: Dice, world: World) -> Steps | None:
    """One text file, whole."""
    path = _some_file(dice, world)
    if path is None:
        return None
    text, value = said(dice, path)
    return _one(READ, "read_text_file", {"path": value}, f"This is what {base(path)} says.", dice, p=text)


def read_part(dice: Dice, world: World) -> Steps | None:
    """The first or last lines."""
    path = _some_file(dice, world)
    if path is None:
        return None
    text, value = said(dice, path)
    lines, end = dice.randint(1, 50), dice.choice(("head", "tail"))
    return _one(
        HEAD if end == "head" else TAIL, "read_text_file", {"path": value, end: lines}, "Here they are.", dice, p=text, n=lines
    )


def read_deprecated(dice: Dice, world: World) -> Steps | None:
    """The deprecated tool, because the user insists."""
    path = _some_file(dice, world)
    return (path and _one(READ_FILE, "read_file", {"path": path}, "Here it is.", dice, p=path)) or None


def media(dice: Dice, world: World) -> Steps | None:
    """A picture or a sound."""
    path = next(path for path, text in world.files.items() if text == MEDIA)
    text, value = said(dice, path)
    return _one(MEDIA_READ, "read_media_file", {"path": value}, f"This is {base(path)}.", dice, p=text)


def read_several(dice: Dice, world: World) -> Steps | None:
    """Two or three files at once."""
    texts = world.texts()
    if len(texts) < 3:
        return None
    said_, values = several(dice, dice.sample(texts, dice.choice((2, 2, 3))))
    return _one(SEVERAL, "read_multiple_files", {"paths": values}, "That is what they say.", dice, ps=said_)


def write(dice: Dice, world: World) -> Steps | None:
    """A new file, or a whole new content."""
    text, value = said(dice, joined(_some_folder(dice, world), _new_name(dice)))
    spoken, body = content(dice)
    return _one(WRITE, "write_file", {"path": value, "content": body}, "It is written.", dice, p=text, c=spoken)


def edit(dice: Dice, world: World) -> Steps | None:
    """One replacement."""
    path = _some_file(dice, world)
    line = path and _line(dice, world.files[path])
    if not path or not line:
        return None
    old = dice.choice([line, *[word for word in line.split() if len(word) > 3 and world.files[path].count(word) == 1]])
    new = dice.choice([dice.choice(_THINGS), dice.choice(_NOUNS), dice.choice(_VALUES)])
    (text, value), mark = said(dice, path), dice.choice(("", "", '"', "'"))
    quoted = {"a": f"{mark}{old}{mark}", "b": f"{mark}{new}{mark}", "p": text}
    arguments: JsonObject = {"path": value, "edits": [{"oldText": old, "newText": new}]}
    if dice.one_in(6):
        return _one(PREVIEW, "edit_file", {**arguments, "dryRun": True}, "That is the difference.", dice, **quoted)
    return _one(EDIT, "edit_file", arguments, "Changed.", dice, **quoted)


def mkdir(dice: Dice, world: World) -> Steps | None:
    """A new folder, perhaps nested."""
    name = dice.choice([dice.choice(WORDS.stems), dice.choice(WORDS.folders)])
    text, value = said(dice, joined(dice.choice(["", "", *world.folders]), name))
    return _one(MKDIR, "create_directory", {"path": value}, "The folder is there.", dice, d=text)


def list_folder(dice: Dice, world: World) -> Steps | None:
    """One level."""
    text, value = place(dice, _some_folder(dice, world))
    return _one(LIST, "list_directory", {"path": value}, "That is what is in it.", dice, d=text)


def sizes(dice: Dice, world: World) -> Steps | None:
    """One level with sizes."""
    text, value = place(dice, _some_folder(dice, world))
    if dice.one_in(2):
        arguments = {"path": value, "sortBy": "size"}
        return _one(BIGGEST, "list_directory_with_sizes", arguments, "The largest comes first.", dice, d=text)
    return _one(SIZES, "list_directory_with_sizes", {"path": value}, "These are the sizes.", dice, d=text)


def tree(dice: Dice, world: World) -> Steps | None:
    """All levels, perhaps without some."""
    text, value = place(dice, _some_folder(dice, world))
    ask, arguments = dice.text(TREE, d=text), {"path": value}
    if dice.one_in(5):
        left_out = dice.choice(["node_modules", ".git", dice.choice(WORDS.folders), "*.log", "*.tmp", "dist"])
        ask += dice.text(WITHOUT, x=left_out)
        arguments = {"path": value, "excludePatterns": [left_out]}  # type: ignore[dict-item]
    return [Ask(text=ask), Call(tool="directory_tree", arguments=arguments), Say(text="That is the whole tree.")]


def move(dice: Dice, world: World) -> Steps | None:
    """To another folder, or to a path given in full."""
    path = dice.choice(sorted(world.files))
    others = [folder for folder in world.folders if folder != parent(path)]
    if not others:
        return None
    (text, value), folder = said(dice, path), dice.choice(others)
    if dice.one_in(2):
        target = joined(folder, dice.choice([base(path), _new_name(dice)]))
        arguments = {"source": path, "destination": target}
        return _one(MV, "move_file", arguments, "Moved.", dice, p=_quoted(dice, path), q=_quoted(dice, target))
    into, goal = place(dice, folder)
    return _one(MOVE, "move_file", {"source": value, "destination": joined(goal, base(path))}, "Moved.", dice, p=text, q=into)


def rename(dice: Dice, world: World) -> Steps | None:
    """Another name in the same folder."""
    path = dice.choice(sorted(world.files))
    text, value = said(dice, path)
    name = _new_name(dice, path.rpartition(".")[2] if "." in base(path) else "")
    return _one(
        RENAME, "move_file", {"source": value, "destination": joined(parent(value), name)}, "Renamed.", dice, p=text, n=name
    )


def _extension(dice: Dice, world: World) -> str:
    return dice.choice([base(path).rpartition(".")[2] for path in world.files if "." in base(path)[1:]] or ["txt"])


def find(dice: Dice, world: World) -> Steps | None:
    """By extension, by name, by a part of the name."""
    way = dice.randrange(4)
    if way == 0:
        extension, (text, value) = _extension(dice, world), place(dice, _some_folder(dice, world))
        arguments = {"path": value, "pattern": f"**/*.{extension}"}
        return _one(FIND_EXT, "search_files", arguments, "These.", dice, e=dice.choice((f".{extension}", extension)), d=text)
    if way == 1:
        extension = _extension(dice, world)
        arguments = {"path": ".", "pattern": f"**/*.{extension}"}
        return _one(
            FIND_EXT_ALL, "search_files", arguments, "These.", dice, e=dice.choice((f".{extension}", extension, f"*.{extension}"))
        )
    if way == 2:
        name = base(dice.choice(sorted(world.files)))
        return _one(FIND_NAME, "search_files", {"path": ".", "pattern": f"**/{name}"}, "There.", dice, n=_quoted(dice, name))
    word = dice.choice(_NOUNS)
    return _one(FIND_WORD, "search_files", {"path": ".", "pattern": f"**/*{word}*"}, "These.", dice, w=_quoted(dice, word))


def info(dice: Dice, world: World) -> Steps | None:
    """Metadata of one file or folder."""
    text, value = said(dice, dice.choice([*sorted(world.files), *sorted(world.files), *world.folders]))
    return _one(INFO, "get_file_info", {"path": value}, "That is what is known of it.", dice, p=text)


def allowed(dice: Dice, world: World) -> Steps | None:
    """The tool without parameters."""
    return _one(ALLOWED, "list_allowed_directories", {}, "That is where I can work.", dice)


def chat(dice: Dice, world: World) -> Steps | None:
    """Nothing to call."""
    return [Ask(text=dice.text(CHAT)), Say(text="Gladly.")]


def outside(dice: Dice, world: World) -> Steps | None:
    """Wanted, but no tool can do it."""
    text, _ = said(dice, dice.choice(sorted(world.files)))
    asked = dice.text(OUTSIDE, p=text, s=dice.choice(_NOUNS), n=dice.randint(1, 12))
    return [Ask(text=asked), Say(text="I have no tool for that.")]
