"""What takes the place of images, sound and files in the results of tools: a line of text, for the models here read nothing else.

What the user sends is refused instead, for the user waits for an answer about it. A result stays in its conversation for ever,
and a refusal would be the conversation's end. The line is the same in every request, so that caches of prefixes hold; what it
stands for is neither read nor kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from services.shared.contracts.tools import JsonObject

# Parts that hold media, by their types on the three wires, in the Model Context Protocol and in the Vercel AI SDK, and what they
# are.
MEDIA = {
    "image_url": "image", "input_image": "image", "image": "image", "computer_screenshot": "image", "image-data": "image",
    "audio_url": "audio", "input_audio": "audio", "audio": "audio",
    "video_url": "video", "video": "video",
    "input_file": "file", "file": "file", "document": "file", "resource": "file", "resource_link": "file", "media": "file",
    "file-data": "file",
}  # fmt: skip

# What of a part may say more about what is in it, the first that is there counts.
HOLDERS = ("image_url", "input_audio", "audio_url", "video_url", "file", "source", "resource", "data")
TYPES = ("media_type", "mime_type", "mimeType", "mediaType")
DATA = ("data", "base64", "file_data", "blob")
ADDRESSES = ("url", "image_url", "file_url", "audio_url", "video_url", "uri")
NAMES = ("filename", "title", "name", "file_id")

MIME = re.compile(r"[a-z]+/[\w.+-]{1,80}")
DATA_URL = re.compile(r"data:([^;,]*)[^,]{0,200},")
AS_JSON = re.compile(rf'"type":\s*"(?:{"|".join(MEDIA)})"')
NOT_SHOWN = ", not shown: this model reads text]"
# Characters of a name or an address in a line. A longer one is of no use, and may be the data itself.
LONGEST = 256


def readable(content: Any) -> Any:
    """The content of a tool's result with a part of text in place of each part that holds media; other content as it is."""
    if isinstance(content, str):
        return _readable_text(content)
    return [_readable(part) for part in content] if isinstance(content, list) else content


def readable_results(entries: Sequence[Any]) -> list[Any]:
    """Messages, or items of Responses, whose results of tools are readable, and so is what follows them before the assistant goes
    on: there clients put what else a tool returned (pydantic-ai, strands), as the user's, where a result can only be text."""
    told: list[Any] = []
    after_result = False
    for entry in entries:
        if isinstance(entry, dict):
            after_result = _is_result(entry) or (after_result and entry.get("role") in ("user", "system", "developer"))
            for name in ("content", "output") if after_result else ():
                if (read := readable(entry.get(name))) is not entry.get(name):
                    entry = {**entry, name: read}
        told.append(entry)
    return told


def _is_result(entry: JsonObject) -> bool:
    """Whether it is a result for chat, for Responses, or has one for Messages."""
    kind, content = entry.get("type"), entry.get("content")
    return (
        entry.get("role") in ("tool", "function")
        or (isinstance(kind, str) and kind.endswith("_output"))
        or (isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in content))
    )


def not_shown(messages: Sequence[JsonObject]) -> int:
    """How many parts of a conversation, whose contents are text, stand there as such a line."""
    return sum((message["content"] or "").count(NOT_SHOWN) for message in messages if message["role"] in ("tool", "user"))


def _readable_text(text: str) -> Any:
    """The same for parts that a client wrote as JSON (for chat, the Vercel AI SDK and LangChain do).

    Listings of files look alike: only what holds long data is media.
    """
    if len(text) <= LONGEST or text[0] not in "[{" or not AS_JSON.search(text):
        return text
    try:
        found = orjson.loads(text)
    except ValueError:
        return text
    parts = found if isinstance(found, list) else [found]
    media = [_kind(part) is not None and len(_data_in(_told(part))) > LONGEST for part in parts]
    are_parts = all(known or _is_text(part) for known, part in zip(media, parts, strict=True))
    return readable(parts) if any(media) and are_parts else text


def _readable(part: Any) -> Any:
    source = part.get("source") if isinstance(part, dict) else None
    if not isinstance(source, dict) or source.get("type") not in ("text", "content"):
        return _as_text(part)
    # A document of text and images, on Messages' wire; it holds no further documents.
    pages = source.get("content")
    return {**part, "source": {**source, "content": [_as_text(page) for page in pages]}} if isinstance(pages, list) else part


def _as_text(part: Any) -> Any:
    kind = _kind(part)
    if kind is None:
        return part
    told = _told(part)
    return {"type": "text", "text": told["text"] if isinstance(told.get("text"), str) else _line(kind, told)}


def _kind(part: Any) -> str | None:
    """What media a part holds; None for one that holds none."""
    kind = part.get("type") if isinstance(part, dict) else None
    return MEDIA.get(kind) if isinstance(kind, str) else None


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _told(part: JsonObject) -> JsonObject:
    """The fields of a part, and of what in it says more."""
    held: JsonObject = next((part[name] for name in HOLDERS if isinstance(part.get(name), dict)), {})
    return {**part, **held}


def _data_in(told: JsonObject) -> str:
    address = _first(told, ADDRESSES)
    return _first(told, DATA) or (address if address.startswith("data:") else "")


def _line(kind: str, told: JsonObject) -> str:
    """Such as `[image/png, 34 KiB, not shown: this model reads text]`."""
    data, address = _data_in(told), _first(told, ADDRESSES)
    mime = _first(told, TYPES) or (f"audio/{told['format']}" if isinstance(told.get("format"), str) else "")
    found = DATA_URL.match(data)
    if found:
        mime = found[1] or mime
    encoded = len(data) - (found.end() if found else 0) - data[-2:].count("=")
    facts = [
        mime if MIME.fullmatch(mime) else kind,
        _size(encoded * 3 // 4) if data else "",
        _first(told, NAMES),
        "" if address == data else address,
    ]
    return f"[{', '.join(' '.join(fact.split()) for fact in facts if 0 < len(fact) <= LONGEST)}{NOT_SHOWN}"


def _first(told: JsonObject, names: Sequence[str]) -> str:
    return next((told[name] for name in names if isinstance(told.get(name), str)), "")


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.0f} KiB" if size < 1024 * 1024 else f"{size / 1024 / 1024:.1f} MiB"
