"""What a model that reads text is told of media in the results of tools, in every form in which clients send them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from services.gateway.wire.media import not_shown, readable, readable_results
from services.shared.contracts.messages import normalised

DATA = base64.b64encode(b"x" * 34_567).decode()
CALLED = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "shot", "arguments": "{}"}}]}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}
LINE = "[image/png, 34 KiB, not shown: this model reads text]"


def pdf(**source: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA, **source}}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        # Chat, as OpenAI and vLLM have it.
        (IMAGE, "image/png, 34 KiB"),
        ({"type": "image_url", "image_url": "https://x.example/a.png"}, "image, https://x.example/a.png"),
        ({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}, "audio/wav, 34 KiB"),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "video/mp4, 3 B"),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": DATA}}, "file, 34 KiB, a.pdf"),
        # Responses.
        ({"type": "input_image", "image_url": IMAGE["image_url"]["url"], "detail": "auto"}, "image/png, 34 KiB"),
        ({"type": "input_image", "image_url": None, "file_id": "file-1"}, "image, file-1"),
        ({"type": "input_file", "filename": "a", "file_data": "data:text/csv;charset=utf-8;base64,YSxi"}, "text/csv, 3 B, a"),
        ({"type": "input_file", "file_url": "https://x.example/a.pdf"}, "file, https://x.example/a.pdf"),
        # Messages.
        ({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "eA=="}}, "image/jpeg, 1 B"),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, "image, file_1"),
        ({**pdf(), "title": "Terms"}, "application/pdf, 34 KiB, Terms"),
        # The Model Context Protocol, and LangChain's blocks.
        ({"type": "image", "data": DATA, "mimeType": "image/webp"}, "image/webp, 34 KiB"),
        ({"type": "audio", "base64": DATA, "mime_type": "audio/mpeg"}, "audio/mpeg, 34 KiB"),
        ({"type": "resource", "resource": {"uri": "file:///a", "mimeType": "a/b", "blob": "eHg="}}, "a/b, 2 B, file:///a"),
        ({"type": "resource_link", "uri": "file:///a", "name": "b"}, "file, b, file:///a"),
        # The Vercel AI SDK, of today and of the versions before.
        ({"type": "file", "mediaType": "image/png", "data": {"type": "data", "data": DATA}}, "image/png, 34 KiB"),
        ({"type": "media", "mediaType": "image/png", "data": DATA}, "image/png, 34 KiB"),
        # What is wrong with it does not matter, for nobody reads it.
        ({"type": "image", "source": "x"}, "image"),
        ({"type": "image_url", "image_url": {"url": f"data:{DATA}"}}, "image, 34 KiB"),
        ({"type": "image", "mimeType": "a]\nb", "data": "A" * 2_000_000}, "image, 1.4 MiB"),
        ({"type": "file", "file": {"filename": f"a\n{'b' * 300}", "file_id": "a\nb"}}, "file"),
        ({"type": "file", "file": {"file_id": "a\n b"}}, "file, a b"),
    ],
)
def test_a_line_says_what_is_there(part: dict[str, Any], told: str) -> None:
    assert readable([part]) == [{"type": "text", "text": f"[{told}, not shown: this model reads text]"}]


def test_what_is_text_stays_text() -> None:
    text = {"type": "text", "text": "a"}
    plain = {"type": "document", "source": {"type": "text", "data": "a"}}
    resource = {"type": "resource", "resource": {"uri": "file:///a", "text": "a"}}
    assert readable([text, resource]) == [text, text]
    assert readable([plain])[0]["source"]["data"] == "a"
    assert readable("a") == "a"


def test_media_inside_a_document_are_told_in_place() -> None:
    pages = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}, pdf()]}}
    [document] = readable([pages])
    assert [part["text"] for part in document["source"]["content"]] == [
        "a", "[application/pdf, 34 KiB, not shown: this model reads text]",
    ]  # fmt: skip


def test_parts_that_a_client_wrote_as_json_are_read_as_parts() -> None:
    text, image = (
        {"type": "text", "text": "ok"},
        {"type": "file", "mediaType": "image/png", "data": {"type": "data", "data": DATA}},
    )
    line = {"type": "text", "text": LINE}
    assert readable(json.dumps([text, image])) == [text, line]
    assert readable(json.dumps(image, separators=(",", ":"))) == [line]


@pytest.mark.parametrize(
    "said",
    [
        [{"type": "file", "name": f"{number}.txt", "data": "x"} for number in range(99)],
        [{"type": "image", "data": DATA}, {"path": "a"}],
        [{"type": "image", "data": DATA}, {"type": ["text"], "text": "a"}],
        [{"type": "image", "data": DATA}, 7],
        {"image": {"type": "image", "data": DATA}},
        {"type": "image", "url": "https://x.example/" + "a" * 300},
        {"type": {"type": "image"}, "data": DATA},
    ],
)
def test_other_json_is_text_as_it_is(said: Any) -> None:
    text = json.dumps(said)
    assert readable(text) is text
    assert readable(text[:-1]) == text[:-1]


def test_documents_in_documents_without_end_are_read_no_deeper() -> None:
    inner: Any = pdf()
    for _ in range(5_000):
        inner = {"type": "document", "source": {"type": "content", "content": [inner]}}
    [document] = readable([inner])
    assert document["source"]["content"] == [{"type": "text", "text": "[file, not shown: this model reads text]"}]


@pytest.mark.parametrize("part", [{"type": "unheard_of"}, {"type": ["image"]}, {"image_url": {}}, 7, None])
def test_what_is_no_media_is_left_for_others_to_judge(part: Any) -> None:
    assert readable([part]) == [part]


def test_a_result_and_what_a_client_puts_behind_it_are_read_and_what_the_user_sends_is_not() -> None:
    asked = {"role": "user", "content": [IMAGE]}
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "done"}, IMAGE]}
    behind = {"role": "user", "content": [{"type": "text", "text": "This is file 1:"}, IMAGE]}
    done = {"role": "assistant", "content": "ok"}
    note = {"role": "system", "content": "a"}
    given = [asked, CALLED, result, note, behind, behind, done, asked]
    told = readable_results(given)
    assert [message is other for message, other in zip(told, given, strict=True)] == [
        *2 * [True],
        False,
        True,
        *2 * [False],
        *2 * [True],
    ]
    messages = normalised(told[1:-1])
    assert [message["content"] for message in messages] == [None, f"done\n{LINE}", "a", *2 * [f"This is file 1:\n{LINE}"], "ok"]
    assert not_shown(messages) == 3
