"""What looks wrong in the words of a tool: hidden characters, orders to the model, names that pass for others.

Servers write these words and models read them, so a person should look before approving. Nothing is removed and nothing refused
here: what is flagged stays in the files as it is, for the audit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.sandbox.pinning import PinnedTool

# The MCP specification's own rule for names.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# A description beyond this crowds out the other tools, and hides things.
MAX_DESCRIPTION = 4096
MAX_FLAGS = 100

_HIDDEN = {
    "a hidden tag character": "\U000e0000-\U000e007f",
    "a variation selector that can carry hidden text": "\U000e0100-\U000e01ef",
    "a zero-width character": "\u200b-\u200d\u2060-\u2064\ufeff\u180e\u00ad",
    "a change of writing direction": "\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c",
    "a terminal escape sequence": "\x1b\x9b",
    "a control character": "\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9a\x9c-\x9f",
}
_HIDDEN_CHARACTER = {what: re.compile(f"[{span}]") for what, span in _HIDDEN.items()}

_ORDERS = {
    "tells the model to forget its instructions": (
        r"\b(ignore|disregard|forget|override)\b.{0,40}\b(instructions?|prompts?|rules|messages)\b"
    ),
    "tells the model to keep something from the user": (
        r"\b(do not|don't|never|without)\b.{0,30}\b(tell|mention|inform|show|reveal)(ing)?\b.{0,30}\buser\b"
    ),
    "speaks of the system prompt": r"\bsystem (prompt|message)\b",
    "claims importance in a tag": r"<\s*/?\s*(important|system|instructions?|secret|critical)\s*>",
    "wants to come before other tools": (
        r"\b(before|instead of) (using|calling|invoking) (any|all|every|another|(the )?other)\b.{0,20}\btools?\b"
    ),
    "asks for credentials": (
        r"(~/\.ssh|\bid_(rsa|ed25519)\b|/etc/(passwd|shadow)|\.aws/credentials|\bmcp\.json\b|\bprivate key\b)"
    ),
    "wants data sent to an address": (r"\b(send|forward|post|upload|exfiltrate|bcc)\b.{0,60}(https?://|\b[\w.+-]+@[\w-]+\.\w)"),
}
_ORDER = {what: re.compile(pattern, re.IGNORECASE | re.DOTALL) for what, pattern in _ORDERS.items()}

# Letters and digits that look like a Latin letter and that Unicode's own folding keeps apart.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһӏԛԝкмтвнαεορτυνικχ015",
    "aeopcyxijsdhlqwkmtbhaeoptuvikxols",
)


def suspicious(pinned: PinnedTool) -> list[str]:
    """One sentence for each thing in one tool that a person should look at; the text itself comes escaped."""
    found = []
    name = pinned.tool.name
    if not _NAME.fullmatch(name):
        found.append(f"its name {name!a:.80} is not 1 to 128 of A-Z a-z 0-9 _ . -")
    if (size := len(pinned.tool.description)) > MAX_DESCRIPTION:
        found.append(f"its description has {size} characters")
    for path, text in _texts(pinned.described(), ""):
        found += [f"{path} has {what}: {_around(text, match)}" for what, match in _matches(text)]
        if len(found) >= MAX_FLAGS:
            return found[:MAX_FLAGS]
    return found


def lookalikes(tools: Mapping[str, Sequence[str]]) -> list[str]:
    """Tools of other names that look the same, and tools of several toolsets with one name; `tools` are names by toolset."""
    known: dict[str, dict[str, set[str]]] = {}
    for toolset, names in tools.items():
        for name in names:
            known.setdefault(skeleton(name), {}).setdefault(name, set()).add(toolset)
    found = []
    for spellings in known.values():
        places = [f"{ascii(name)[1:-1]} of {', '.join(sorted(toolsets))}" for name, toolsets in sorted(spellings.items())]
        if len(spellings) > 1:
            found.append(f"look alike: {'; '.join(places)}")
        elif len(next(iter(spellings.values()))) > 1:
            found.append(f"the same name: {places[0]}")
    return found


def skeleton(name: str) -> str:
    """What is left of a name for somebody who reads fast: one case, look-alike letters as one, no separators."""
    folded = unicodedata.normalize("NFKC", name).casefold().translate(_LOOKALIKES)
    return re.sub(r"[\W_]", "", folded).replace("l", "i").replace("rn", "m") or name


def _matches(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    for what, pattern in [*_HIDDEN_CHARACTER.items(), *_ORDER.items()]:
        if match := pattern.search(text):
            yield what, match


def _around(text: str, match: re.Match[str]) -> str:
    return ascii(text[max(match.start() - 20, 0) : match.end() + 20])[:160]


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys too, with its place."""
    if isinstance(value, str):
        yield path or "it", value
    elif isinstance(value, dict):
        for key, below in value.items():
            place = f"{path}.{ascii(key)[1:-1]:.40}".lstrip(".")
            yield f"the key {place}", key
            yield from _texts(below, place)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _texts(below, f"{path}.{number}")
