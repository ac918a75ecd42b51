"""Whose bearer token it is: a file with a line `<tenant> <token>` for each, read again when it changes."""

from __future__ import annotations

import hmac
from pathlib import Path

from services.sandbox.tenants import TENANT_NAME
from services.shared.contracts.errors import Unavailable

# Shorter ones can be guessed; 32 hex digits have 128 bits.
MIN_TOKEN_CHARS = 32


class Tokens:
    """The tokens of one file.

    Raises:
        Unavailable: the file cannot be read, has no token, or one that is too short; says which line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = 0
        self._tenants: list[tuple[bytes, str]] = []
        self._refresh()

    def tenant(self, token: str) -> str | None:
        """The tenant that `token` belongs to, None for a wrong one. Compares in constant time."""
        self._refresh()
        given = token.encode("utf-8", "replace")
        found = [tenant for known, tenant in self._tenants if hmac.compare_digest(known, given)]
        return found[0] if found else None

    def _refresh(self) -> None:
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise Unavailable(f"the token file {self._path} cannot be read: {error}") from None
        self._tenants = [self._entry(number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
        if not self._tenants:
            raise Unavailable(f"the token file {self._path} has no token: write lines of `<tenant> <token>`")
        self._stamp = stamp

    def _entry(self, number: int, line: str) -> tuple[bytes, str]:
        tenant, _, token = line.strip().partition(" ")
        if not TENANT_NAME.fullmatch(tenant) or len(token.strip()) < MIN_TOKEN_CHARS:
            raise Unavailable(
                f"line {number} of the token file {self._path} must be `<tenant> <token>`: 1 to 64 letters, digits, '.', '_' or "
                f"'-', and at least {MIN_TOKEN_CHARS} characters; make a token with: openssl rand -hex 32"
            )
        return token.strip().encode(), tenant
