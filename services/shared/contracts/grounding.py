"""Grounding: a word that arguments begin as the conversation spells it goes on as the conversation spells it.

Small models begin to copy a rare word and end in a commoner one: `clinic/notes.md` becomes `clinical/notes.md`. So, while a word
is being written that a word of the prompt begins with, tokens that lead away from all such words lose `GROUNDING` nats. A model
that is sure of another word still writes it. How a word begins is the model's own affair, so what it composes freely stays free:
a word of one token is never touched. It is lexically constrained decoding (arXiv 1704.07138) made soft, with the prompt as the
lexicon.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

# What a token that leads away loses, in nats: it must be 55 times as likely as one that does not. Measured in trainer/LOG.md.
GROUNDING = 4.0
# How many of the likeliest tokens are looked at; of the rest none is taken for leading on.
LIKELY = 32
# The name under which vLLM hands a request's nats on (`vllm_xargs`).
GROUNDING_ARGUMENT = "agentflux_grounding"

# Scripts that put no spaces between words: Thai to Tibetan, Burmese, Khmer, kana and the Chinese characters.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Numbers are no words: they may be counted or computed.
_WORD = re.compile(rf"[^\W\d_{_UNSPACED}][^\W_{_UNSPACED}]*")
_FIRST_WORD = re.compile(rf"^{_WORD.pattern}")
_LAST_WORD = re.compile(rf"{_WORD.pattern}\Z")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PART_OF_A_CHARACTER = "\ufffd"
_FIRST_OF_SEVERAL_BYTES = "\x80"
# How many of the last written tokens are read: more than any word has.
WINDOW = 32


class Grounds:
    """The words of one prompt, and how what is written after it relates to them."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        text = tokenizer.decode(list(prompt), skip_special_tokens=True)
        # Earlier calls stand there as JSON, where "\n" before a word is no letter of it.
        self._words = sorted({*_WORD.findall(text), *_WORD.findall(_ESCAPE.sub(" ", text))})

    def leading_on(self, written: Sequence[int], likely: Callable[[], Sequence[int]]) -> list[int]:
        """Which of the `likely` next tokens lead on in words of the prompt, after the tokens `written` so far; others lead away.

        Empty where there is no such word, or no such token. `likely` is only asked while a word of the prompt is being written.
        """
        window = list(written[-WINDOW:])
        text = self._decoded(window)
        word = _last_word(text)
        if not word or not self._begins(word):
            return []
        return [token for token in likely() if self._leads_on(word, text, self._decoded([*window, token]))]

    def _leads_on(self, word: str, text: str, longer: str) -> bool:
        if longer.endswith(_PART_OF_A_CHARACTER):
            # Which character that will be, only the next token says.
            return self._begins(word, from_=word + _FIRST_OF_SEVERAL_BYTES)
        going_on = word + longer[len(text) :]
        [found] = _FIRST_WORD.findall(going_on)
        return self._begins(found) if found == going_on else self._has(found)

    def _begins(self, word: str, from_: str | None = None) -> bool:
        """Whether a word of the prompt begins so, of those that do not come before `from_`."""
        at = bisect_left(self._words, from_ or word)
        return at < len(self._words) and self._words[at].startswith(word)

    def _has(self, word: str) -> bool:
        at = bisect_left(self._words, word)
        return at < len(self._words) and self._words[at] == word

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False)


def _last_word(written: str) -> str:
    """The word that `written`, a piece of JSON, ends in; empty where it ends in none."""
    plain = _ESCAPE.sub(" ", written)
    found = _LAST_WORD.search(plain) if not plain.endswith("\\") else None
    return found[0] if found else ""
