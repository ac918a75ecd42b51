"""What leads on in the words of a prompt, and what leads away."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from services.shared.contracts.grounding import Grounds
from tests.fakes import toy_renderer

BYTES = toy_renderer()._tokenizer


def tokens(text: str) -> list[int]:
    return list(BYTES.encode(text, add_special_tokens=False).ids)


def leading_on(prompt: str, written: str, *pieces: str) -> list[str]:
    """Which of the pieces, each of one token, lead on in a word of the prompt."""
    each = {piece: tokens(piece)[0] for piece in pieces}
    found = Grounds(BYTES, tokens(prompt)).leading_on(tokens(written), lambda: list(each.values()))
    return [piece for piece, token in each.items() if token in found]


@pytest.mark.parametrize(
    ("written", "pieces", "on"),
    [
        # Halfway through a word: only on to its end.
        ('{"path": "clin', "icab/", ["i"]),
        ('{"path": "clinic', 'a/."', ["/", ".", '"']),
        # A word that begins otherwise, or has not begun, is composed freely.
        ('{"path": "cot', "abt", []),
        ('{"path": "', "abxc", []),
        ('{"path": "clinic/', "abx", []),
        ('{"path": "clin\n', "iax", []),
        # Once it is another word, it may end as it likes.
        ('{"path": "clinical', "ls/", []),
        # Capitals are other letters.
        ('{"path": "CLIN', "I/", []),
        # Underscores and digits part words; a word may have digits.
        ('{"path": "clinic_clin', "ix", ["i"]),
        ('{"path": "year', "91", ["9"]),
        # Numbers are computed.
        ('{"head": 2', "01,", []),
        # The n of a line break is no letter.
        ('{"content": "a\\nfro', "mg", ["m"]),
        ('{"content": "a\\', "nx", []),
    ],
)
def test_a_word_of_the_prompt_goes_on_as_it_does_there(written: str, pieces: str, on: list[str]) -> None:
    assert leading_on("see clinic/a.md from year9, line 203", written, *pieces) == on


def test_words_of_earlier_calls_are_those_of_their_values() -> None:
    history = r'{"content": "one\nthermostat"}'
    assert leading_on(history, "therm", *"ox") == ["o"]
    assert leading_on(r'{"path": "C:\\new"}', "ne", *"wx") == ["w"]


def test_accents_are_letters_and_a_part_of_a_character_is_left_alone() -> None:
    assert leading_on("im Kühlschrank", "Küh", *"ln") == ["l"]
    assert leading_on("im Kühlschrank", "K", *"üa") == ["ü"]
    assert leading_on("im Kran", "K", *"üa") == []


@pytest.mark.parametrize("prompt", ["读取文件报告", "อ่านไฟล์รายงาน", "ファイルをよむ"])
def test_scripts_without_spaces_are_left_alone(prompt: str) -> None:
    assert leading_on(prompt, prompt[0], *prompt) == []


def test_nothing_is_looked_up_between_words() -> None:
    def asked() -> list[int]:
        raise AssertionError

    grounds = Grounds(BYTES, tokens("see clinic/a.md"))
    assert grounds.leading_on(tokens('{"path": "'), asked) == []
    assert grounds.leading_on([], asked) == []


def test_only_the_end_of_a_long_text_is_read() -> None:
    grounds = Grounds(BYTES, tokens("see clinic/a.md"))
    assert grounds.leading_on(tokens("word " * 2000 + "clin"), lambda: tokens("xi")) == tokens("i")


def test_a_token_that_begins_with_a_space_ends_the_word_in_other_vocabularies_too() -> None:
    # As Llama 2's: decoding one token by itself would lose the space.
    pieces = {"<unk>": 0, "▁see": 1, "▁clinic": 2, "▁al": 3, "al": 4, "▁clinical": 5}
    other = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    other.pre_tokenizer = pre_tokenizers.Metaspace()
    other.decoder = decoders.Metaspace()
    assert Grounds(other, [1, 2]).leading_on([2], lambda: [3, 4]) == [3]
    assert Grounds(other, [1, 5]).leading_on([2], lambda: [3, 4]) == [4]
