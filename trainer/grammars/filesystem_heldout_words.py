"""What the users of the held-out grammar say, their manners, and the names in their trees. Never for training.

Written by an author who has not seen the training grammar. Short templates and questions about a purpose stand side by side,
for so do people; each names one tool to any reader.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.grammars.mechanics import Dice, Vocabulary, base, parent, words

STEMS = words(
    "trombone,mortgage,stencil,plumbing,curfew,recital,hedgehog,gasket,thermostat,mattress,quilt,octave,scaffold,landlord,"
    "almanac,drainage,easel,haircut,yoghurt,wallpaper,upholstery,ferryman,pottery,marathon,bakery,tribunal,chestnut,dowry,"
    "embargo,foundry,grapefruit,hammock,kayak,lobster,monsoon,nutmeg,oatmeal,paddock,raffle,sundial,"
    "trombone_duet,mortgage_2031,parking_permits,roof_quote,kayakhire,choir-tour"
)
TODOS = words(
    "renew the passport,defrost the freezer,collect the parcel,prune the roses,bleed the radiators,book the ferry,"
    "top up the meter,descale the kettle,return the ladder,water the ferns"
)
KEYS = words("margin,retries,theme,volume,timeout,currency,port,language")
VALUES = words("12,30,dark,light,8080,euro,weekly,true")


def pair(dice: Dice) -> str:
    """A setting and its value."""
    return f"{dice.choice(KEYS)} = {dice.choice(VALUES)}"


def _lines(shape: str) -> list[str]:
    return [shape.format(todo) for todo in TODOS]


def _some(dice: Dice, lines: list[str]) -> str:
    return "\n".join(dice.sample(lines, dice.randint(2, 5))) + "\n"


def _todos(dice: Dice) -> str:
    return _some(dice, TODOS)


def _pairs(dice: Dice) -> str:
    return _some(dice, [f"{key} = {dice.choice(VALUES)}" for key in KEYS])


def _list_items(dice: Dice) -> str:
    return _some(dice, _lines("<li>{}</li>"))


def _queries(dice: Dice) -> str:
    return _some(dice, [f"SELECT * FROM {stem};" for stem in STEMS[:12]])


def _events(dice: Dice) -> str:
    return _some(dice, [f"{hour}:15 {todo}" for hour, todo in enumerate(TODOS, 10)])


WORDS = Vocabulary(
    folders=words(
        "choir,allotment,permits,clinic,rehearsals,payroll,seminars,campsite,sailing,mosaic,apiary,tenancy,trade fair,bureau,"
        "year9,wedding,podcasts,renovation"
    ),
    stems=STEMS,
    kinds={
        "txt": _todos, "md": _todos, "adoc": _todos, "log": _events, "toml": _pairs, "ini": _pairs, "html": _list_items,
        "sql": _queries, "srt": _events, "": _todos,
    },
    media=words("gif,webp,jpg,tiff,wav,mp3"),
    odd_stems=words("INSTALL,Form7,A4,TwoOwls,W2,Budget24,Room9,crème brûlée,rent v1.2,Größen,to-do-may"),
)  # fmt: skip
SOUNDS = frozenset(words("wav,mp3"))

# Every verb that only this grammar uses: no training template may contain one.
VERBS = frozenset(
    words(
        "rattle,familiarise,dictate,distil,reread,portray,dominate,dominates,resemble,scrawl,immortalise,rustle,"
        "plonk,memorise,recast,retype,nudge,overhaul,conjure,furnish,trawl,gobbling,consuming,quantify,outweigh,outweighs,"
        "illustrate,unravel,chuck,toss,rehouse,usher,shunt,reroute,rebadge,suss,sniff,reunite,ascertain,corral,"
        "wandered,strayed,worded,superseded,supersedes,misspelt,piled,hiding,venture,barred"
    )
)

READ = (
    "rattle off what's in {p}",
    "catch me up on {p}",
    "my accountant wonders how {p} is worded",
    "I've forgotten every word of {p}, help me out",
    "might I have a rundown of {p}?",
    "familiarise me with {p}",
    "every word of {p}, please",
    "dictate {p} to me",
    "does {p} mention a deadline?",
    "in a nutshell, {p} is about what?",
    "distil {p} into two sentences",
    "what is {p} going on about?",
    "reread {p}, is it polite enough?",
    "supply the text of {p}",
    "I have my lawyer on the phone, how is {p} worded?",
    "did I mention the neighbours in {p}?",
    "I'd like to reread {p} (before I leave|on the train)",
)
HEAD = (
    "rattle off {n} lines of {p}, counted from the top",
    "{n} lines of {p} from the top, not a word more",
    "reread {p}, stopping once line {n} is done",
    "how is {p} worded up to line {n}?",
    "dictate {p} to me, down to line {n}",
    "supply {p}, cut off after line {n}",
    "I'd only like lines 1 through {n} of {p}",
    "catch me up on {p}, lines 1 through {n}",
)
TAIL = (
    "rattle off {n} lines of {p}, counted from the bottom",
    "{n} lines of {p} from the bottom, not a word more",
    "supply just {n} lines of {p}, those at the very bottom",
    "dictate the concluding {n} lines of {p}",
    "how is {p} worded in its last {n} lines?",
    "catch me up on the concluding {n} lines of {p}",
    "I'd only like the concluding {n} lines of {p}",
    "reread {p}, but nothing besides its last {n} lines",
)
PICTURE = (
    "supply the picture {p}",
    "what does the picture {p} portray?",
    "is anybody smiling in the photo {p}?",
    "which colours dominate the image {p}?",
    "might I have a glimpse of the picture {p}?",
    "treat us to the photo {p}",
    "is my finger in the photo {p}?",
    "would the photo {p} suit our newsletter?",
    "might I have the {e} picture {p}?",
)
SOUND = (
    "is there a guitar in the song {p}?",
    "which words are spoken in the recording {p}?",
    "dictate the words spoken in the recording {p}",
    "is the sound in {p} crackly?",
    "supply the audio of {p}",
    "treat us to the song {p}",
    "whose voice is on the recording {p}?",
    "is somebody coughing in the recording {p}?",
)
SEVERAL = (
    "rattle off {ps} in one breath",
    "catch me up on {ps}",
    "familiarise me with {ps}",
    "do {ps} clash anywhere?",
    "are {ps} worded alike?",
    "distil {ps} into one paragraph",
    "how closely do {ps} resemble each other?",
    "supply the text of {ps}",
    "might I have a rundown of {ps}?",
    "my lawyer wonders how {ps} are worded",
    "reread {ps}; which is the clearest?",
    "dictate {ps} to me",
    "every word of {ps}, please",
    "does anything occur twice across {ps}?",
)
WRITE = (
    "pencil {c} into a brand-new {p}",
    "scrawl {c} in a brand-new {p}",
    "punch {c} into {p}, a file that isn't there so far",
    "rustle up {p} with nothing but {c} in it",
    "{c} should form the text of a brand-new {p}",
    "I don't trust my memory: {c} belongs in a brand-new {p}",
    "wanted: a brand-new {p}, consisting of {c}",
    "conjure up a file {p}, its text being {c}",
    "plonk {c} into a brand-new file {p}",
    "memorise {c} for me in a brand-new {p}",
    "for posterity, {c} goes into a brand-new {p}",
    "treat {p} as blank, its entire text is now {c}",
    "furnish me with a file {p} consisting of {c}",
    "immortalise {c} in a brand-new {p}",
)
EDIT = (
    "recast {a} as {b} in {p}",
    "retype {a} in {p} as {b}",
    "{p} has {a} where {b} belongs",
    "{a} is obsolete in {p}, it was superseded by {b}",
    "somebody mistyped {a} in {p}, they meant {b}",
    "overnight {a} turned into {b}, {p} ought to reflect that",
    "overhaul {p}: out goes {a}, in comes {b}",
    "{p} got it wrong with {a}, {b} is right",
    "wherever {p} has {a}, {b} goes there",
    "lift {a} out of {p} and plonk {b} there",
    "instead of {a}, I meant {p} to say {b}",
    "my boss insists on {b} in {p}, not {a}",
    "{b}, not {a}, was intended in {p}",
    "have {p} say {b} in lieu of {a}",
)
MKDIR = (
    "rustle up a folder {d}",
    "conjure up a folder {d}",
    "I'm short of a folder {d}",
    "a folder {d} would be handy",
    "wouldn't a folder {d} be handy?",
    "how about adding a folder {d}?",
    "rig up a folder {d}",
    "my invoices merit their own folder, {d}",
    "wanted: a folder by the name of {d}",
    "would you furnish me with a folder {d}?",
    "a directory {d}, please, brand-new and empty",
    "folder {d} please, empty for now",
    "a directory by the name of {d} would help me",
    "my receipts go into {d} from here on, a folder that has yet to exist",
)
LIST = (
    "a roll call for {d}, please",
    "stocktake of {d}",
    "rattle off the filenames in {d}",
    "what has piled up in {d}?",
    "is {d} deserted?",
    "is stuff of mine lingering in {d}?",
    "by name, what's in {d}?",
    "how crowded is {d}?",
    "rifle through {d}, what turns up?",
    "which things did my brother leave in {d}?",
    "is there junk in {d}?",
    "might I have a rundown of the filenames in {d}?",
    "I've forgotten what {d} was for, which filenames are there?",
    "my niece left something in {d}, what's its filename?",
)
SIZES = (
    "how many megabytes apiece do files in {d} have?",
    "rattle off the filenames in {d} plus their megabytes",
    "stocktake of {d}, sizes too",
    "is anything bloated in {d}?",
    "how hefty is everything in {d}, file by file?",
    "might I have a rundown of {d} with kilobytes per file?",
    "a roll call for {d}, each with its size",
    "how much disk is {d} gobbling, file by file?",
    "how much is each thing in {d} consuming on disk?",
    "file by file, how many bytes in {d}?",
    "quantify the disk usage in {d}, file by file",
    "does everything in {d} stay below a megabyte per file?",
    "which files in {d} are over a megabyte?",
    "catch me up on the sizes in {d}",
)
BIGGEST = (
    "what's gobbling the most disk in {d}?",
    "which file dominates {d} by size?",
    "rundown of {d}, hefty ones first",
    "which file outweighs the others in {d}?",
    "rattle off {d}, biggest to smallest",
    "stocktake of {d}, heftiest on top",
    "my disk overflows: what's the heftiest item in {d}?",
    "from bloated to tiny, what's in {d}?",
    "a roll call for {d} by descending size",
    "a size ranking of {d}, please",
    "which file in {d} is bloated the most?",
    "who's the heavyweight in {d}?",
    "is there one file in {d} that's consuming most of its disk?",
    "the whopper in {d}, which file is that?",
)
TREE = (
    "tour {d} for me, subfolders of subfolders too",
    "rundown of {d} and every folder nested inside",
    "how are folders nested in {d}?",
    "illustrate how {d} branches out",
    "portray {d} as a tree",
    "unravel {d} to its very last subfolder",
    "familiarise me with the layout of {d}, all levels",
    "family tree of {d}, please",
    "the layout of {d} with children and grandchildren",
    "how deep does {d} go and what's on every level?",
    "a panorama of {d}, nested folders and all",
    "stocktake of {d} and all that's nested in it",
    "a roll call for {d}, subfolders of subfolders too",
    "might I have the layout of {d} with all its levels?",
)
MOVE = (
    "chuck {p} into {q}",
    "toss {p} into {q}",
    "plonk {p} in {q}",
    "rehouse {p} in {q}",
    "{p} strayed, it belongs in {q}",
    "usher {p} into {q}",
    "shunt {p} to {q}",
    "ferry {p} over to {q}",
    "retire {p} to {q}",
    "nudge {p} over into {q}",
    "from now on {q} is home to {p}",
    "{q} is the proper home of {p}",
    "I filed {p} wrongly, {q} would be right",
    "reroute {p} to {q}",
)
RENAME = (
    "rebadge {p} as {n}",
    "{p} goes by {n} from here on",
    "I misspelt {p}, it's meant to be {n}",
    "retype the filename {p} as {n}",
    "{n} suits {p} better as a filename",
    "have {p} go by {n}",
    "the filename {p} is obsolete, {n} supersedes it",
    "{n} would be a clearer filename than {p}",
    "recast the filename {p} as {n}",
    "same file, same folder, but {p} becomes {n}",
    "I keep confusing {p}, so {n} as its name from here on",
    "overhaul the filename {p}: {n}",
    "my boss insists on {n} as filename for {p}",
    "I'm unhappy with the filename {p}, {n} is snappier",
)
FIND_EXT = (
    "rifle through {d}, subfolders too, for {e} files",
    "trawl {d} for {e} files",
    "how many {e} files are hiding in {d}, at any depth?",
    "suss out the {e} files in {d}",
    "does {d} harbour {e} files at any depth?",
    "sniff out {e} files in {d}",
    "where in {d} do {e} files turn up, at any depth?",
)
FIND_EXT_ALL = (
    "trawl everything for {e} files",
    "whereabouts of each {e} file?",
    "my {e} files have wandered off, all of them",
    "sniff out my {e} files",
    "suss out which {e} files exist",
    "at any depth, which {e} files exist?",
    "rifle through everything for {e} files",
)
FIND_NAME = (
    "reunite me with {n}",
    "sniff out {n}",
    "whereabouts of {n}, please",
    "{n} has wandered off, help me out",
    "suss out the folder where {n} is hiding",
    "under which path is {n} hiding?",
    "I saved {n} somewhere, but in what folder?",
    "trawl everything for {n}",
)
FIND_WORD = (
    "trawl the filenames for {w}",
    "whereabouts of files with {w} as part of the filename?",
    "sniff out filenames featuring {w}",
    "does {w} feature in any filename?",
    "rifle through my filenames for {w}",
    "something with {w} as part of the filename has wandered off",
)
INFO = (
    "how many kilobytes does {p} come to?",
    "is {p} bloated?",
    "has {p} been tampered with lately?",
    "roughly how many weeks old is {p}?",
    "when was I last working on {p}?",
    "ascertain the date of {p}",
    "is {p} fresh or months old?",
    "{p} comes to how many bytes?",
    "a rundown of the properties of {p}: size, age, permissions",
    "is {p} still the version from yesterday?",
    "am I barred from overwriting {p}?",
    "date and size of {p}, nothing else",
    "does {p} stay below a megabyte?",
    "which permissions govern {p}?",
)
ALLOWED = (
    "on this disk, what does your clearance cover?",
    "where does your jurisdiction stop?",
    "which directories are within your perimeter?",
    "what are you barred from on this disk, and what aren't you?",
    "do you have clearance for all of my disk or only a part?",
    "what territory on this disk is yours?",
    "which folders were you admitted to?",
    "what have I granted you, in terms of folders?",
    "am I right that you're confined to some folders? which?",
    "remind me of your sandbox, which directories is it?",
    "can you venture anywhere on this disk or are there limits?",
    "in terms of directories, how long is your leash?",
    "which directories fall under your clearance?",
    "your perimeter on this machine, please",
)
CHAT = (
    "(top of the morning|good to meet you|long time no chat)",
    "(how deep is the Pacific|who composed Carmen|which river is Asia's longest)?",
    "come up with a (tongue twister|riddle|nursery rhyme) for (a wedding|a rainy Monday|my niece)",
    "why (do leaves turn yellow|does ice float|do we yawn)?",
    "how much is (17 times 6|a third of 96|2 to the power of 10)?",
    "any advice for (better focus|picking up Italian|sensible filenames)?",
    "what's a (toml|srt|webp) file good for in general?",
    "(superb|fabulous)(|, cheers for that|, bye)",
    "in general, what's the shell command for duplicating folders?",
    "do robots ever get bored?",
    "(I'm exhausted|my birthday is today|my train got cancelled)",
    "is a directory the same thing as a folder?",
    "what's a good naming scheme for holiday photos?",
)
OUTSIDE = (
    "(how cold is it|is it snowing) in (Oslo|Lima|Dakar)(| at the moment)?",
    "inform (my sister|the plumber|Tomasz) by phone that I'm stuck in traffic",
    "(incinerate|vaporise) {p}, it's worthless",
    "guard {p} with a secret passphrase",
    "get {p} onto a USB stick",
    "squash {p} into a zip",
    "wire my landlord 50 euros",
    "who's leading in the (cycling|chess) championship?",
    "nudge me at {n} o'clock",
    "what are {s} prices doing today?",
    "kick off some (jazz|soul) in the kitchen",
    "(hail|summon) a taxi",
    "dispatch {p} to my accountant by courier",
    "fire up {p} in the terminal",
)
FIND_READ = (
    "reunite me with {n} and rattle it off",
    "sniff out {n}, then catch me up on it",
    "{n} has wandered off; whereabouts, and how is it worded?",
    "suss out the folder where {n} is hiding, then dictate the file to me",
)
LIST_READ = (
    "rattle off the filenames in {d}, then catch me up on {n}",
    "stocktake of {d}, followed by every word of {n}",
    "rifle through {d}, then dictate {n} to me",
    "a roll call for {d}, and after it the wording of {n}",
)
NESTED = (
    "portray {d} as a tree, then rattle off what's in {n}",
    "tour {d} for me, subfolders of subfolders too, and dictate {n}",
    "family tree of {d}, followed by every word of {n}",
    "unravel {d} to its very last subfolder, then catch me up on {n}",
)
COPY = (
    "I'd like a twin of {p}, by the name of {q}",
    "mint a twin of {p}, filename {q}",
    "as a safety net, {p} deserves a twin, {q}",
    "keep {p}, and have {q} with identical text",
)
NEW_MOVE = (
    "rustle up a folder {d} and chuck {p} into it",
    "conjure up a folder {d}, then plonk {p} in there",
    "{p} deserves its own brand-new folder, {d}",
    "rig up a folder {d} and rehouse {p} there",
)
FETCH_EDIT = (
    "rattle off what's in {p}, then recast {a} as {b}",
    "catch me up on {p}, then retype {a} as {b}",
    "dictate {p} to me, and after it {a} becomes {b}",
    "every word of {p}, please; after it, {b} goes where it has {a}",
)
FIND_MOVE = (
    "herd my {e} files into some brand-new folder, {d}",
    "trawl everything for {e} files and chuck them into some brand-new folder, {d}",
    "corral all {e} files, they go into some brand-new folder, {d}",
    "sniff out the {e} files and rehouse them in some brand-new folder, {d}",
)
TWO = (
    "does {p} outweigh {q}?",
    "are there more bytes in {p} or in {q}?",
    "which is fresher, {p} or {q}?",
    "whose date is later, that of {p} or that of {q}?",
)
HEAVIEST = (
    "what's gobbling the most disk in {d}, and how is it worded?",
    "rattle off the heftiest file in {d}, every word",
    "suss out which file in {d} dominates by size, then dictate it to me",
    "every word of the most bloated file in {d}, please",
)
ROOTS = (
    "which directories fall under your clearance, and what has piled up there?",
    "remind me of your sandbox, and rattle off the filenames in it",
    "your perimeter on this machine plus a roll call for it, please",
    "what territory on this disk is yours, and which filenames are there?",
)
NEW_WRITE = (
    "rustle up a folder {d}, and inside a file {n} consisting of {c}",
    "conjure up a folder {d}, then pencil {c} into {n} in there",
    "rig up a folder {d} with a brand-new {n} in it, consisting of {c}",
    "a folder {d} would be handy, plus {n} in there, its text being {c}",
)
WRITE_BACK = (
    "pencil {c} into a brand-new {p}, then dictate the file to me",
    "rustle up {p} with nothing but {c}, then reread it from disk",
    "scrawl {c} in a brand-new {p}, then rattle off the file as proof",
    "plonk {c} into a brand-new file {p}, then reread the file as proof",
)
THEN_INFO = ("how many kilobytes does it come to?", "what's its age?", "is it bloated?", "its date and size, please")
THEN_FETCH = ("and how is it worded?", "catch me up on it", "every word of it, please", "dictate it to me")
THEN_FETCH_NAMED = ("rattle off what's in {n}", "catch me up on {n}", "and how is {n} worded?", "every word of {n}, please")
THEN_RETITLE = (
    "rebadge it as {n}",
    "it goes by {n} from here on",
    "I misspelt its filename, it's meant to be {n}",
    "my boss insists on {n} as its filename",
)
THEN_SHIFT = ("chuck it into {d}", "it strayed, it belongs in {d}", "usher it into {d}", "rehouse it in {d}")
THEN_LIST = (
    "a roll call for {d} too",
    "and what has piled up in {d}?",
    "next, a stocktake of {d}",
    "is there junk in {d} too?",
)
THEN_ABOUT = (
    "your verdict?",
    "is that good news?",
    "how would a child phrase that?",
    "superb, cheers for that",
    "does the tone seem friendly?",
)
BEFORE = ("Small favour: ", "When you have a second: ", "Sorry to pester you: ", "For the audit: ")
BACKGROUND = ("The audit is on Friday. ", "My manager is waiting for this. ", "I'm clearing my desk. ")
AFTER = (" Thanks in advance.", " No rush.", " I'd be grateful.")


def quoted(dice: Dice, value: str) -> str:
    """A path or name as people set it off from their sentence: always when it has a space, else now and then."""
    mark = dice.choice(('"', '"', "`"))
    return f"{mark}{value}{mark}" if " " in value or dice.one_in(6) else value


def said(dice: Dice, path: str, *, exists: bool = True) -> tuple[str, str]:
    """A path as these users write it, and as a call has to give it."""
    style = dice.randrange(10)
    if parent(path) and style < 2:
        name, folder = quoted(dice, base(path)), quoted(dice, parent(path))
        return (f"the {name} we keep in {folder}" if exists and style else f"{name} (inside {folder})"), path
    value = {2: f"/workspace/{path}", 3: f"/workspace/{path}", 4: f"./{path}"}.get(style, path)
    return quoted(dice, value), value


def place(dice: Dice, folder: str) -> tuple[str, str]:
    """A folder as these users call it, and as a call has to give it."""
    if not folder:
        return dice.choice((("the root folder", "."), ("my workspace", "."), ("the outermost folder", "."), ("/workspace",) * 2))
    style = dice.randrange(6)
    value = {0: f"/workspace/{folder}", 1: f"{folder}/"}.get(style, folder)
    text = quoted(dice, value)
    return {2: f"the folder called {text}", 3: f"the {text} directory"}.get(style, text), value


def finish(dice: Dice, text: str, kept: Sequence[str]) -> str:
    """Their manners: a capital, a word before, a word after a question, never one that could be read as part of a value."""
    way, starts_with_value = dice.randrange(12), any(text.startswith((value, base(value) or value)) for value in kept if value)
    if text.count(" ") > 2 and way < 2:
        return dice.choice(BEFORE) + text
    capital = text if starts_with_value else text[0].upper() + text[1:]
    if text.count(" ") > 2 and way == 2:
        return dice.choice(BACKGROUND) + capital
    if way in (3, 4) and text.endswith("?"):
        return capital + dice.choice(AFTER)
    return capital if way < 9 else text
