"""What may stand in a record of what callers and tools said: shapes instead of texts, and texts without secrets."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from services.shared.contracts.redaction import Redactor
from services.shared.contracts.tools import JsonObject

# Longer texts are cut, where texts are kept at all.
MAX_TEXT = 64 * 1024
MAX_SHAPE_NODES = 64
# A shorter secret would tear holes into every other word.
MIN_SECRET = 6
# In the form of `Redactor`'s, which then leaves it alone.
STAND_IN = "REDACTED-0"


@dataclass(frozen=True)
class Scrubber:
    """Takes known secrets out of texts by value: plain, in JSON, in base64, in a URL."""

    secrets: Iterable[bytes] = ()
    _forms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for secret in self.secrets:
            if len(secret.strip()) >= MIN_SECRET:
                self._forms.extend(_forms(secret.strip()))
        # A form may contain another one.
        self._forms.sort(key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, STAND_IN)
        return text


def _forms(secret: bytes) -> Iterator[str]:
    text = secret.decode("utf-8", "replace")
    yield from {text, json.dumps(text)[1:-1], urllib.parse.quote(text, safe=""), secret.hex()}
    # Where a secret begins within a longer text in base64 is one of three places.
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret).decode()
        yield whole[(0, 2, 3)[before] : len(whole) - (3 if whole.endswith("=") else 0)]


def kept_text(text: str, scrub: Scrubber, limit: int = MAX_TEXT) -> JsonObject:
    """A text as a record has it: secrets out, and cut to `limit` characters."""
    # Scrubbed before it is cut: half a secret is not found.
    told: JsonObject = {"text": Redactor().redacted(scrub(cleaned(text[: 2 * limit]))[:limit])}
    return {**told, "cut": True} if len(text) > limit else told


def cleaned(text: str) -> str:
    """`text` as UTF-8 can have it."""
    return text.encode("utf-8", "replace").decode()


def shape(value: Any, known_keys: frozenset[str]) -> Any:
    """What `value` looks like, without any text of it: types, lengths, and those keys that the tool's schema has anyway."""
    return _shape(value, known_keys, [MAX_SHAPE_NODES])


def _shape(value: Any, known_keys: frozenset[str], room: list[int]) -> Any:
    room[0] -= 1
    if isinstance(value, dict):
        shown: JsonObject = {}
        for number, (key, part) in enumerate(value.items()):
            if room[0] <= 0:
                return {**shown, "…": len(value) - number}
            shown[key if key in known_keys else f"key_{number}"] = _shape(part, known_keys, room)
        return shown
    if isinstance(value, list):
        items: list[Any] = []
        for number, part in enumerate(value):
            if room[0] <= 0:
                return [*items, f"… {len(value) - number}"]
            items.append(_shape(part, known_keys, room))
        return items
    if isinstance(value, str):
        return f"string({len(value)})"
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def property_names(schema: Any) -> frozenset[str]:
    """Every name that a JSON Schema gives to a property, at whatever depth."""
    names: set[str] = set()
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict):
                names |= part["properties"].keys()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return frozenset(names)
