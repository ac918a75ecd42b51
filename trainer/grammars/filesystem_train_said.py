"""How users point at paths and folders, and in what manner they say the rest: each gives the text, and the value for a call.

A path is called as the user wrote it: "/workspace/docs/a.txt" and "./docs/a.txt" stay so, "a.txt in docs" is "docs/a.txt".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.grammars.mechanics import Dice, base, parent, with_typo

QUOTES = ('"{t}"', "'{t}'", "`{t}`", "“{t}”", "‘{t}’", "«{t}»", "**{t}**", "<{t}>", "„{t}“", "[{t}]")
INSIDE = (
    "{n} (in|from|inside|within|under) (the|my|our|) {f} (folder|directory|dir|subfolder)",
    "{n} (in|from|of|under|inside) {f}",
    "{n} (in|of|from) the (folder|directory|dir) {f}",
    "{n} (in the folder|in directory|in folder|from directory) {f}",
    "{f}'s {n}",
    "{n}, (which is|located|to be found|which lies) in {f}",
    "{n}, folder {f},",
    "{n}, which (lives|sits|is kept|i keep) in {f}",
    "{n} (inside|from|in) (the|our) {f} (directory|folder)",
    "{n} (over in|down in|out of|stored in|kept in) {f}",
)
FILE_INSIDE = (
    "the (file|document|item|one) {n} (in|from|inside|under) {f}",
    "the {n} (file|document) (in|from|inside) (the|our|my) {f} (folder|directory)",
    "(my|our) {n} (in|from|under) (the|our|my|) {f} (folder|directory)",
)
NAMED = (
    "(the|my|our|this|that) (file|document) {n}",
    "the (file|document|item) (called|named) {n}",
    "the {n} (file|document)",
    "(my|our|the) {n}",
    "file {n}",
    "(the path|path) {n}",
)
HERE = (
    "here",
    "(the|this|my|our) workspace",
    "this (directory|folder|place)",
    "the (current|working|root|top|main|present|base) (directory|folder)",
    "(my|our|the) (root|home) folder",
    "(the|our) (top level|topmost folder|uppermost folder)",
    "the folder (we are in|i am in|you work in)",
    "the cwd",
    "(my files|the main folder|the top level|the top folder)",
)
FOLDER = (
    "(the|my|our|that) {f} (folder|directory|dir|subfolder)",
    "the (folder|directory|subfolder) (called|named|) {f}",
    "(our|my|this) {f} (directory|folder)",
    "the (directory|folder) {f}",
    "(folder|directory|dir) {f}",
)
INTO_HERE = (
    "the (workspace|top level|root folder|main folder|root|top folder)",
    "the (base folder|workspace root|topmost folder|working directory)",
)
BEFORE = (
    "(please|pls|kindly|hey|hi|hello|ok now|quick one:|now|next:|um,|well,) {t}",
    "(so,|alright,|listen,|dear assistant,|quick question:|hey there,) {t}",
    "(one more thing:|small favour:|small favor:|request:|task:|todo:|first of all,|for starters,|right,) {t}",
    "(i'm in a hurry:|no rush, but|if you have a second:|sorry to bother you,) {t}",
    "(when you get the chance,|if it isn't too much trouble,) {t}",
    "(my boss is waiting.|we have a meeting soon.|i'm preparing the audit.) {t}",
    "(i am on the phone.|the deadline is near.|we are tidying up.) {t}",
    "(for the meeting:|for my report:|for the new colleague:) {t}",
    "(for the archive:|as agreed:|as i said yesterday,|like last time,) {t}",
    "(so,|hey -|ok -|quick q:|hmm,|look,|ok so|psst,|attention:|note to self:|dear helper,|good morning,|good evening,) {t}",
    "(if it isn't too much trouble:|when it suits you:|just curious:|for the record:|out of interest:|fyi i'm busy,) {t}",
    "{o}(quick one|urgent|not urgent|for later|low priority|as discussed|for tomorrow){e} {t}",
    "(it's monday and i am lost.|i just came back from holiday.|i have two minutes left.|i'm on a slow connection.) {t}",
)
AFTER = (
    "{t}( please| pls|, thanks| thx|, thank you|.|!|, ok?|, will you|, would you| asap| now| right away|, cheers|...)",
    "{t}(, it is urgent|, no hurry|, my boss is waiting|, the client is on the phone|, i need it for a meeting|, as agreed)",
    "{t} (because the audit starts today|before lunch|before i leave|so that i can go on|since nobody else knows|for my report)",
    "{t}. (thanks|thank you|many thanks|that's all|i'm waiting|no need to hurry)",
    "{t}. (it is for the board|i need it today|don't do anything else)",
    "{t} :)",
    "{t} (-|--) (cheers|thanks|thx|thank you|please|many thanks|asap|no rush|it's urgent|sorry|merci|ta|over)",
    "{t}, (cheers|thx|ta|please|mate|friend|dear|asap|danke|many thanks|much obliged|that's all|quickly|buddy)",
    "{t} {o}(no hurry|thanks|asap|please|urgent|cheers|sorry|if possible|for the boss|take your time|thx){e}",
    "{t}(.|!|?|!!|;|??|...| !| ?| .)",
    "{t} (asap|pronto|pls|please|thx|thanks|cheers|mate|quickly|right now|immediately|today)",
    "{t}(.|!|,| -) (cheers|thanks a lot|thx|bye|ta|thank you so much|appreciate it|you're great|have a nice day)(|!|.)",
)
ORDERS = (
    "{t}", "{t}", "{t}", "{t}", "{t}", "{t}",
    "(can|could|would|will) you {t}?",
    "(can|could|would|will) you (please|kindly|quickly|) {t}",
    "(please|kindly) {t}",
    "i( want| need|'d like| would like| ask| expect) you to {t}",
    "(go ahead and|just|now|simply|quickly|try to|you should|you may|do) {t}",
    "(let's|time to|it's time to|we should|we need to|we have to|i need to|i want to|i have to) {t}",
    "(would you be so kind as to|would you be able to|are you able to|is it possible to|may i ask you to|be so kind and) {t}",
    "(would it be possible to|any chance you could|do you think you could) {t}",
    "(i wonder if you could|it would be great if you could) {t}",
    "(your task:|your job is to|the next step is to|what i need is this:|here is what to do:|step 1:) {t}",
    "(help me|help me to|assist me:|do me a favor and|do me a favour and) {t}",
    "{t} (for me|for us|if you can|if possible|when you can)",
    "(remember to|don't forget to|be sure to|make sure to) {t}",
)  # fmt: skip


_MARKS = "\"'`“”„‘’«»*<>[]()_.,:;!?"


def quoted(dice: Dice, text: str, often: float = 5) -> str:
    """Perhaps in quotes; names with spaces more often."""
    if not dice.one_in(2 if " " in text else often):
        return text
    mark = dice.choice((*QUOTES[:3] * 6, *QUOTES))
    opening, closing = mark.split("{t}")
    return text if opening in text or closing in text else f"{opening}{text}{closing}"


def said(dice: Dice, path: str) -> tuple[str, str]:
    """A file as a user calls it, and its path as a call has to give it."""
    # A bare "harvest" could as well be a folder.
    if not dice.one_in(6 if "." in base(path) else 2):
        return spelled(dice, path)
    if parent(path) and dice.one_in(2):
        return dice.text(FILE_INSIDE, n=quoted(dice, base(path)), f=quoted(dice, parent(path))), path
    return dice.text(NAMED, n=quoted(dice, path)), path


def spelled(dice: Dice, path: str) -> tuple[str, str]:
    """Like `said`, without a word on what the thing is: it may be a folder."""
    style = dice.randrange(14)
    if parent(path) and style < 4:
        folder, value = dice.choice([(parent(path), path)] * 3 + [(f"/workspace/{parent(path)}", f"/workspace/{path}")])
        if dice.one_in(8):
            return f"{quoted(dice, base(path))} {dice.choice(('(', '(in ', '(folder '))}{folder})", value
        return dice.text(INSIDE, n=quoted(dice, base(path)), f=quoted(dice, folder)), value
    value = {4: f"/workspace/{path}", 5: f"/workspace/{path}", 6: f"./{path}"}.get(style, path)
    return quoted(dice, value), value


def place(dice: Dice, folder: str) -> tuple[str, str]:
    """A folder as a user calls it, and as a call has to give it; "" is the workspace."""
    if not folder:
        exact = dice.choice(("/workspace", ".", "", "", "", "", "/workspace/", "./"))
        return (exact, exact) if exact else (dice.text(HERE), ".")
    style = dice.randrange(10)
    value = {3: f"/workspace/{folder}", 4: f"{folder}/", 5: f"./{folder}", 6: f"/workspace/{folder}/"}.get(style, folder)
    if style < 4:
        return dice.text(FOLDER, f=quoted(dice, value)), value
    return quoted(dice, value), value


def target(dice: Dice, folder: str) -> tuple[str, str]:
    """Like `place`, for where something goes: "here" would be no answer to "where to?"."""
    return place(dice, folder) if folder else (dice.text(INTO_HERE), ".")


def several(dice: Dice, paths: Sequence[str]) -> tuple[str, list[str]]:
    """A list of paths in a sentence, and as values."""
    folders = {parent(path) for path in paths}
    if len(folders) == 1 and "" not in folders and dice.one_in(2):
        folder = folders.pop()
        texts, values = [_listed(dice, base(path)) for path in paths], list(paths)
        text = _enumerated(dice, texts)
        return text + dice.choice((f" in {folder}", f" from {folder}", f" in the {folder} folder", f" (all in {folder})")), values
    start = dice.choice(("", "", "", "", "/workspace/", "./"))
    values = [f"{start}{path}" for path in paths]
    return _enumerated(dice, [_listed(dice, value) for value in values]), values


def _listed(dice: Dice, text: str) -> str:
    # Without quotes, a comma or an "and" in a name would end it.
    return f'"{text}"' if re.search(r"[,;+&]| - | and ", text) and '"' not in text else quoted(dice, text)


def _enumerated(dice: Dice, texts: list[str]) -> str:
    if dice.one_in(4):
        return dice.choice((", ", " ", "; ", " + ")).join(texts) if all(" " not in text for text in texts) else ", ".join(texts)
    last = dice.choice(
        (" and ", " and ", " and ", ", and ", " & ", " as well as ", " and also ", ", then ", " plus ", " along with ")
    )
    return ", ".join(texts[:-1]) + last + texts[-1]


def ordered(dice: Dice, text: str) -> str:
    """An order in the form of a request, a question or a wish."""
    return dice.text(ORDERS, t=text)


def finish(dice: Dice, text: str, kept: Sequence[str]) -> str:
    """Manners, capitals and slips."""
    # A template has no brackets of its own.
    brackets = {"o": "(", "e": ")"}
    if dice.one_in(8):
        text = dice.text(BEFORE, t=text, **brackets)
    if dice.one_in(4) and "\n" not in text:
        text = dice.text(AFTER, t=text.rstrip("?"), **brackets)
    for _ in range(dice.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2))):
        text = with_typo(dice, text, kept)
    manner = dice.randrange(12)
    if manner == 0:
        return " ".join(word if _is_kept(word, kept) else word.upper() for word in text.split(" "))
    start = re.split(r"[\s,:;?'’]", text, maxsplit=1)[0].rstrip(".!")
    return text if manner > 5 or any(start in part for part in kept) else text[:1].upper() + text[1:]


def _is_kept(word: str, kept: Sequence[str]) -> bool:
    bare = word.strip(_MARKS).removesuffix("'s").strip(_MARKS)
    return "\n" in word or "/" in word or any(bare in part or word in part for part in kept)


def bare(path: str) -> str:
    """A path relative to the workspace, however it was written; "" is the workspace itself."""
    return "" if path == "." else path.removeprefix("/workspace").removeprefix("./").strip("/")
