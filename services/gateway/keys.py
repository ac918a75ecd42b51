"""API keys: who is known by which key, and what each of them may do. `python -m services.gateway.keys new` makes one.

The file is a YAML list (or the same in JSON), one entry per key; two entries may share a name while one key replaces the other:

    - name: team-a
      sha256: 9f86d081884c7d65…    # of the key; the key itself is kept nowhere
      toolsets: [filesystem]       # left out: all
      base_model: false            # left out: true; false: neither the base model by its name nor tools of no registered toolset
      requests_per_minute: 60      # left out: as many as they like; tokens_per_minute and tokens_per_day likewise
      expires: 2027-06-30T00:00:00Z
    - name: anonymous              # an entry without sha256: what callers without a key may do; left out: nothing

SHA-256 is enough, and no slow password hash is needed, because a key is 256 random bits and cannot be guessed from its hash;
a slow hash would cost each request what it is meant to cost an attacker.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.shared.contracts.errors import Forbidden, Unauthorized

ANONYMOUS = "anonymous"

# Below this a key that somebody made up by hand could be guessed from its hash.
SHORTEST_KEY = 20


class Caller(BaseModel):
    """Who sends a request, and what they may do. None means without limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The name becomes a label of metrics, a field of logs and part of keys in Redis.
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", repr=False)
    toolsets: frozenset[str] | None = None
    base_model: bool = True
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    expires: AwareDatetime | None = None

    def permit(self, toolset: str | None) -> None:
        """Returns when the caller may use `toolset`; None stands for the base model, asked by its name or with tools that belong
        to no registered toolset. What it says in a toolset's conversation, as after the calls, comes with the toolset.

        Raises:
            Forbidden: saying what the key is good for.
        """
        if self.base_model if toolset is None else self.toolsets is None or toolset in self.toolsets:
            return
        wanted = f"the toolset {toolset!r}" if toolset else "the base model, nor for tools that belong to no registered toolset"
        good_for = ", ".join(sorted(self.toolsets)) if self.toolsets is not None else "all"
        raise Forbidden(f"the API key {self.name!r} is not good for {wanted}; its toolsets: {good_for or 'none'}", param="model")


EVERYBODY = Caller(name=ANONYMOUS)


class Keys:
    """The callers by their keys. Without any, everybody may do everything, as `anonymous`."""

    def __init__(self, callers: Sequence[Caller] = ()) -> None:
        self.replace(callers)

    def replace(self, callers: Sequence[Caller]) -> None:
        """Other keys from the next request on."""
        self.is_open = not callers
        self._anonymous = next((caller for caller in callers if caller.sha256 is None), None)
        self._by_prefix = {caller.sha256[:16]: caller for caller in callers if caller.sha256 is not None}

    @property
    def policy(self) -> str:
        """One phrase for logs and readiness."""
        if self.is_open:
            return "open: everybody may do everything, because neither keys_file nor api_key is set"
        return f"{len(self._by_prefix)} keys; callers without one {'have limits' if self._anonymous else 'are refused'}"

    def caller(self, key: str | None, now: datetime) -> Caller:
        """Whose `key` it is; a key that nobody has is refused even where callers without one are welcome.

        Raises:
            Unauthorized: the key is missing, unknown or expired. The message does not repeat it.
        """
        if self.is_open:
            return EVERYBODY
        if not key:
            if self._anonymous is None:
                raise Unauthorized("no API key was sent; send one as `Authorization: Bearer …` or as `x-api-key: …`")
            return self._anonymous
        digest = key_digest(key)
        # The look-up tells by its time at most something of a hash that the caller cannot choose; the rest of the comparison
        # takes the same time whatever was sent.
        found = self._by_prefix.get(digest[:16])
        if found is None or not hmac.compare_digest(digest, found.sha256 or ""):
            raise Unauthorized("the API key is not known here; ask the operator for another one")
        if found.expires is not None and now >= found.expires:
            raise Unauthorized(f"the API key {found.name!r} expired at {found.expires:%Y-%m-%dT%H:%MZ}; ask for another one")
        return found


def key_digest(key: str) -> str:
    """SHA-256 in hex, as a key is kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def single_key(key: str) -> Caller:
    """The caller `default`, who may do everything with this one key.

    Raises:
        ValueError: the key is too short to be a secret.
    """
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"the API key is shorter than {SHORTEST_KEY} characters; make one: python -m services.gateway.keys new")
    return Caller(name="default", sha256=key_digest(key))


def read_keys(file: Path) -> list[Caller]:
    """The entries of a file of keys.

    Raises:
        ValueError: naming the file and the entry, and quoting nothing of it: somebody may have written a key there.
        OSError: the file cannot be read.
    """
    try:
        # YAML reads JSON, too.
        callers = TypeAdapter(list[Caller]).validate_python(yaml.safe_load(file.read_text("utf-8")) or [])
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"{file}, line {line}: not YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise ValueError(f"{file} is not YAML") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ValueError(f"{file}: {where}: {first['msg']}") from None
    if not callers:
        raise ValueError(f"{file} has no keys; to let everybody in, leave keys_file unset")
    digests = [caller.sha256 for caller in callers]
    if doubled := next((caller.name for caller in callers if digests.count(caller.sha256) > 1), None):
        raise ValueError(f"{file}: the entry {doubled!r} has the same sha256 as another one, or both have none")
    return callers


def read_callers(keys_file: Path | None, api_key: str | None, api_key_file: Path | None) -> list[Caller]:
    """Everybody who is known, from all the places where keys may be; none if there is no such place.

    Raises:
        ValueError: naming what is wrong, and no key.
        OSError: a file cannot be read.
    """
    callers = read_keys(keys_file) if keys_file else []
    if api_key:
        callers.append(single_key(api_key))
    if api_key_file:
        callers.append(single_key(api_key_file.read_text("utf-8").partition("\n")[0].strip()))
    return callers


def append_key(file: Path, entry: dict[str, Any]) -> None:
    """Adds one entry to a file of keys, which may not exist yet; a reader sees the old file or the new one.

    Raises:
        ValueError: the file, or the entry, is not right.
    """
    Caller.model_validate(entry)
    before = file.read_text("utf-8") if file.exists() else ""
    if file.suffix == ".json":
        after = json.dumps([*json.loads(before or "[]"), entry], indent=2) + "\n"
    else:
        # Text is added and nothing is written anew, so that comments stay.
        after = before + ("\n" if before and not before.endswith("\n") else "") + yaml.safe_dump([entry], sort_keys=False)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(after, "utf-8")
        read_keys(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a key, prints it once, and adds its hash to the file of keys."""
    parser = argparse.ArgumentParser(prog="python -m services.gateway.keys", description="API keys of the gateway.")
    new = parser.add_subparsers(required=True).add_parser("new", help="make a key")
    new.add_argument("--name", required=True, help="who it is for: 1 to 64 letters, digits, dots, dashes and underscores")
    new.add_argument("--file", type=Path, default=Path("keys.yaml"), help="the file of keys (default: %(default)s)")
    new.add_argument("--toolsets", help="toolsets that may be used, separated by commas (default: all)")
    new.add_argument("--no-base-model", action="store_true", help="no model but toolsets, and no tools but theirs")
    for limit in ("requests-per-minute", "tokens-per-minute", "tokens-per-day"):
        new.add_argument(f"--{limit}", type=int, help="default: without limit")
    new.add_argument("--expires", help="last moment, such as 2027-06-30 or 2027-06-30T12:00:00Z (default: never)")
    given = parser.parse_args(arguments)
    key = f"af-{secrets.token_urlsafe(32)}"
    try:
        append_key(given.file, _entry(given, key_digest(key)))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(key)
    print(f"its hash is in {given.file}; a gateway reads that file when AGENTFLUX_GATEWAY_KEYS_FILE names it", file=sys.stderr)


def _entry(given: argparse.Namespace, digest: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": given.name, "sha256": digest}
    if given.toolsets is not None:
        entry["toolsets"] = [name.strip() for name in given.toolsets.split(",") if name.strip()]
    if given.no_base_model:
        entry["base_model"] = False
    limits = {name: getattr(given, name) for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day")}
    entry |= {name: limit for name, limit in limits.items() if limit is not None}
    if given.expires is not None:
        moment = datetime.fromisoformat(given.expires)
        entry["expires"] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    return entry


if __name__ == "__main__":
    main()
