"""What must not get from live traffic into a log or into training data: keys, tokens, addresses, whatever looks like a secret.

The same secret gets the same stand-in throughout a conversation, so that a call stays grounded in what the user said. Names of
people, telephone numbers and secrets in plain words are not found.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_PREFIXES = "sk|pk|rk|ghp|gho|ghs|github_pat|glpat|hf|npm|pypi|xox[abprs]"
_LABELS = "passw(?:or)?d|passphrase|secret|token|api[_ -]?key|access[_-]?key"
# In order; what is replaced is the group `secret`, or all of it. None may begin in the middle of a word: it would read a long
# text once for each of its characters, and the gateway has no time for that.
PATTERNS = [
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
        ("password", r"\b\w+://[^\s/:@]+:(?P<secret>[^\s/@]+)@"),
        ("email", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
        ("token", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
        ("token", r"\b[Bb]earer\s+(?P<secret>[\w.~+/=-]{8,})"),
        ("key", rf"\b(?:{_PREFIXES})[-_][\w-]{{16,}}|\bA(?:KIA|SIA)[0-9A-Z]{{16}}\b|\bAIza[\w-]{{30,}}"),
        # Quotes may be escaped: arguments are JSON text.
        ("password", rf"(?i)(?:{_LABELS})\\?[\"']?\s*(?:[:=]|\bis\b)\s*\\?[\"']?(?P<secret>[^\s\"',;&\\]{{4,}})"),
        ("hex", r"(?<![0-9A-Za-z])(?:0x)?[0-9a-fA-F]{32,}(?![0-9A-Za-z])"),
        ("base64", r"(?<![\w+/=-])[\w+/-]{40,}={0,2}"),
    )
]
# A long path is no base64: that has long runs of capitals, small letters and digits together.
_MIXED = re.compile(r"(?<![A-Za-z\d+])(?=[A-Za-z+]*\d)(?=[a-z\d+]*[A-Z])(?=[A-Z\d+]*[a-z])[A-Za-z\d+]{12,}")
_STAND_IN = re.compile(r"REDACTED-\d+|user\d+@example\.invalid")


@dataclass
class Redactor:
    """The stand-ins of one conversation; `found` counts the secrets by kind, each once."""

    found: Counter[str] = field(default_factory=Counter)
    _known: dict[str, str] = field(default_factory=dict)

    def redacted(self, value: Any) -> Any:
        """`value`, which is JSON, without the secrets in its texts."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {key: self.redacted(part) for key, part in value.items()}
        return [self.redacted(part) for part in value] if isinstance(value, list) else value

    def _text(self, text: str) -> str:
        for kind, pattern in PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._replaced(kind, match), text)  # type: ignore[misc]
        return text

    def _replaced(self, kind: str, match: re.Match[str]) -> str:
        secret = match.groupdict().get("secret") or match[0]
        if _STAND_IN.search(secret) or (kind == "base64" and not _MIXED.search(secret)):
            return match[0]
        if secret not in self._known:
            self.found[kind] += 1
            number = len(self._known) + 1
            # Still an address, for schemas that demand one.
            self._known[secret] = f"user{number}@example.invalid" if kind == "email" else f"REDACTED-{number}"
        return match[0].replace(secret, self._known[secret])
