"""Secrets that must not get through, and words that must."""

from __future__ import annotations

import pytest

from services.shared.contracts.redaction import Redactor

HEX = "9f86d081884c7d659a2feaa0c55ad015"
BASE64 = "Zm9vYmFyQmF6MTIzNDU2Nzg5MFF3ZXJ0eVVpb3BBc2RmR2hqa2w="


@pytest.mark.parametrize(
    ("text", "secret", "kind"),
    [
        ("write to ann.lee+x@mail.example.com now", "ann.lee+x@mail.example.com", "email"),
        ("use sk-abcdefghijklmnopqrstuv", "sk-abcdefghijklmnopqrstuv", "key"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "key"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP", "key"),
        ("Authorization: Bearer abc.def-123456", "abc.def-123456", "token"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_DEF", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_DEF", "token"),
        ("postgres://app:hunter22@db/x", "hunter22", "password"),
        ("PASSWORD=hunter22", "hunter22", "password"),
        ('{"api_key": "hunter22"}', "hunter22", "password"),
        ('"{\\"token\\": \\"hunter22\\"}"', "hunter22", "password"),
        ("my password is hunter22", "hunter22", "password"),
        (f"digest {HEX}.", HEX, "hex"),
        (f"blob {BASE64}", BASE64, "base64"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "abc", "key"),
    ],
)
def test_a_secret_does_not_get_through(text: str, secret: str, kind: str) -> None:
    redactor = Redactor()
    assert secret not in redactor.redacted(text)
    assert redactor.found == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "read /workspace/reports/2024/quarterly/Invoice_Summary_final_version2.txt",
        "the token was lost, tell the secretary",
        "order 1234567890 of 2024-05-01",
        "create_relations_between_all_entities_in_the_knowledge_graph",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    redactor = Redactor()
    assert (redactor.redacted(text), redactor.found.total()) == (text, 0)


def test_the_same_secret_has_the_same_stand_in_everywhere() -> None:
    redactor = Redactor()
    row = redactor.redacted([{"content": f"a@b.cd and {HEX}"}, {"arguments": f'{{"to": "a@b.cd", "id": "{HEX}", "n": 1}}'}])
    assert row[0]["content"] == "user1@example.invalid and REDACTED-2"
    assert row[1]["arguments"] == '{"to": "user1@example.invalid", "id": "REDACTED-2", "n": 1}'
    assert redactor.redacted(row) == row


@pytest.mark.parametrize(
    "text", ["z" * 500_000, "a.b-" * 100_000, "Yz" * 200_000, "token " * 50_000, "y@" * 100_000, "eyJ-" * 100_000]
)
def test_a_long_text_is_read_once_and_not_once_for_each_of_its_characters(text: str) -> None:
    """Reading these again from every character would take hours."""
    redactor = Redactor()
    assert (redactor.redacted(text), redactor.found.total()) == (text, 0)
